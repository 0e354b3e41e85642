"""What a distilled `Trainer` refuses, and in which words."""

import pytest
import torch

from integrations.models import Bare, Words, llama, rows, trainer
from understudy.errors import DataError, ModelError, TrainingError
from understudy.integrations.transformers import Reverse, TokenObjective

OBJECTIVE = TokenObjective(temperature=2.0, soft_weight=0.7, hard_weight=0.4)


def says(teacher):
    def goal(row):
        with torch.no_grad():
            return teacher(torch.tensor([row["input_ids"]])).logits[0]

    return goal


@pytest.fixture(scope="module")
def models():
    return llama(8), llama(16, seed=1)


class TestRefusals:
    @pytest.mark.parametrize("hidden", [False, True])
    def test_a_label_outside_the_vocabulary(self, tmp_path, models, hidden):
        student = Bare(models[0]) if hidden else models[0]
        given = rows(prompts=False)
        given[2]["labels"] = [*given[2]["input_ids"][:-1], 99]
        with pytest.raises(ValueError, match=r"`0 <= labels < 24` must hold, but got label 99"):
            trainer(tmp_path, student, OBJECTIVE, given, teacher=models[1]).train()

    @pytest.mark.parametrize("hidden", [False, True])
    def test_a_stored_label_that_is_not_finite(self, tmp_path, models, hidden):
        student = Bare(models[0]) if hidden else models[0]
        given = rows(prompts=False)
        for row in given:
            row["logits"] = says(models[1])(row).float()
        given[0]["logits"][1, 3] = torch.nan
        with pytest.raises(TrainingError, match=r"token 1 is nan \(1 of 47 tokens\)"):
            trainer(tmp_path, student, OBJECTIVE, given).train()

    def test_no_teacher_and_two_teachers(self, tmp_path, models):
        with pytest.raises(TrainingError, match="a teacher must speak, as soft_weight"):
            trainer(tmp_path, models[0], OBJECTIVE, rows()).train()
        given = [{**row, "logits": says(models[1])(row).float()} for row in rows()]
        with pytest.raises(TrainingError, match=r"one teacher, but .* teacher_logits"):
            trainer(tmp_path, models[0], OBJECTIVE, given, teacher=models[1]).train()

    def test_a_student_that_teaches_itself(self, tmp_path, models):
        with pytest.raises(ModelError, match="another module than the student"):
            trainer(tmp_path, models[0], OBJECTIVE, rows(), teacher=models[0])

    def test_a_trainer_with_a_loss_of_its_own(self, tmp_path, models):
        with pytest.raises(TrainingError, match="leave `compute_loss_func` out"):
            trainer(tmp_path, models[0], OBJECTIVE, rows(), compute_loss_func=print)
        with pytest.raises(TrainingError, match=r"set `TokenObjective\(label_smoothing=0.1\)`"):
            trainer(tmp_path, models[0], OBJECTIVE, rows(), label_smoothing_factor=0.1)

    def test_a_batch_without_labels(self, tmp_path, models):
        def collate(given):
            return {"input_ids": torch.tensor([given[0]["input_ids"]])}

        with pytest.raises(DataError, match="must have `labels`, but has input_ids"):
            trainer(tmp_path, models[0], OBJECTIVE, rows(), teacher=models[1],
                    data_collator=collate).train()  # fmt: skip

    def test_listed_labels_that_are_not_forward_need_a_head(self, tmp_path, models):
        given = [
            {**row, "logits_ids": [[1]] * len(row["input_ids"]),
             "logits_logprobs": [[-0.1]] * len(row["input_ids"]),
             "logits_rest": [-2.0] * len(row["input_ids"])} for row in rows()
        ]  # fmt: skip
        with pytest.raises(ValueError, match=r"`divergence == Forward\(\)` must hold"):
            trainer(tmp_path, Bare(models[0]), TokenObjective(divergence=Reverse()), given).train()

    def test_another_tokenizer_is_refused_by_the_token_that_differs(self, tmp_path, models):
        own = Words({"a": 0, "b": 1, "c": 2})
        with pytest.raises(
            ModelError, match="token 1 is 'b' to the student and 'z' to the teacher"
        ):
            trainer(tmp_path, models[0], OBJECTIVE, rows(), teacher=models[1],
                    processing_class=own, teacher_tokenizer=Words({"a": 0, "z": 1}))  # fmt: skip

    def test_a_token_that_the_teacher_does_not_know(self, tmp_path, models):
        few = llama(16, vocabulary=5)
        with pytest.raises(ModelError, match="knows 5 tokens, but the batch has token"):
            trainer(tmp_path, models[0], OBJECTIVE, rows(), teacher=few).train()
