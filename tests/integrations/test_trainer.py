"""A distilled `Trainer`: the same gradient for every cut, against float64, and what is refused."""

import copy

import pytest
import torch
import transformers

from integrations.models import VOCABULARY, Bare, Words, gradients, llama, rows, trainer
from understudy.integrations.transformers import (
    Blend,
    Reverse,
    Skew,
    StoredRows,
    TokenCollator,
    TokenObjective,
    distilled,
    label_tokens,
)
from understudy.labels.columns import export_columns

CUTS = [(8, 1), (4, 2), (1, 8)]
OBJECTIVE = TokenObjective(temperature=2.0, soft_weight=0.7, hard_weight=0.4)


def same(found, expected, *, within=1e-10):
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=within, atol=within)


def by_hand(student, goal_of, given, *, at=2.0, soft=0.7, hard=0.4):
    """The gradient of the mean over all counted tokens, one row after the other, unpadded."""
    student = copy.deepcopy(student).train()
    total, count = 0.0, 0
    for row in given:
        tokens = torch.tensor([row["input_ids"]])
        learned = torch.tensor(row["completion_mask"]).bool()[1:]
        own = student(tokens).logits[0, :-1][learned]
        goal = goal_of(row)[:-1][learned]
        own_at, goal_at = (own / at).log_softmax(1), (goal / at).log_softmax(1)
        total = total + soft * at**2 * (goal_at.exp() * (goal_at - own_at)).sum()
        chosen = own.log_softmax(1).gather(1, tokens[0, 1:][learned][:, None])
        total, count = total - hard * chosen.sum(), count + int(learned.sum())
    (total / count).backward()
    return {name: p.grad for name, p in student.named_parameters()}, float((total / count).detach())


def says(teacher):
    def goal(row):
        with torch.no_grad():
            return teacher(torch.tensor([row["input_ids"]])).logits[0]

    return goal


@pytest.fixture(scope="module")
def models():
    return llama(8), llama(16, seed=1)


@pytest.fixture(scope="module")
def expected(models):
    student, teacher = models
    return by_hand(student, says(teacher), rows())


@pytest.mark.parametrize(("batch", "parts"), CUTS)
def test_a_step_is_the_mean_over_all_its_tokens_however_it_is_cut(
    tmp_path, models, expected, batch, parts
):
    student, teacher = models
    found, told = gradients(
        tmp_path, student, OBJECTIVE, rows(), teacher=teacher, batch=batch, parts=parts
    )
    same(found, expected[0])
    assert told["loss"] == pytest.approx(expected[1], rel=1e-6)
    both = 0.7 * told["divergence"] + 0.4 * told["cross_entropy"]
    assert both == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.parametrize(("batch", "parts"), CUTS[:2])
def test_bare_logits_and_a_teacher_that_is_any_callable_give_the_same(
    tmp_path, models, expected, batch, parts
):
    student, teacher = models
    found, _ = gradients(
        tmp_path, Bare(student), OBJECTIVE, rows(), batch=batch, parts=parts,
        teacher=lambda input_ids, attention_mask: teacher(input_ids, attention_mask).logits,
    )  # fmt: skip
    same({name.removeprefix("inside."): value for name, value in found.items()}, expected[0])


def test_the_last_step_of_an_epoch_has_fewer_parts_and_is_a_mean_too(tmp_path, models):
    student, teacher = models
    taught = trainer(tmp_path, copy.deepcopy(student), OBJECTIVE, rows(), teacher=teacher,
                     batch=3, parts=2, steps=2)  # fmt: skip
    taught.train()
    one = trainer(tmp_path, copy.deepcopy(student), OBJECTIVE, rows()[:6], teacher=teacher,
                  batch=6)  # fmt: skip
    one.train()
    _, value = by_hand(one.model, says(teacher), rows()[6:])
    assert taught.state.log_history[1]["loss"] == pytest.approx(value, rel=1e-6)


def test_plain_cross_entropy_is_the_trainers_own(tmp_path, models):
    student, _ = models
    control = TokenObjective(soft_weight=0, hard_weight=1)
    found, told = gradients(tmp_path, student, control, rows(), batch=4, parts=2)
    same(found, by_hand(student, lambda row: torch.zeros(len(row["input_ids"]), VOCABULARY),
                        rows(), soft=0, hard=1)[0])  # fmt: skip
    plain = transformers.Trainer(
        model=copy.deepcopy(student), train_dataset=rows(), data_collator=TokenCollator(),
        args=trainer(tmp_path, student, control, rows(), batch=4, parts=2,
                     remove_unused_columns=False).args,
    )  # fmt: skip
    plain.train()
    # The library computes its own loss in float32.
    assert plain.state.log_history[0]["loss"] == pytest.approx(told["loss"], rel=1e-5)
    assert "divergence" not in told


@pytest.fixture(scope="module")
def stored(models, tmp_path_factory):
    """The teacher's labels as a file, by codec."""
    folder = tmp_path_factory.mktemp("stored")

    def write(codec, **parameters):
        name = "-".join([codec, *map(str, parameters.values())])
        path = folder / f"{name}.parquet"
        texts = {row["id"]: row["input_ids"] for row in rows()}
        store = label_tokens(models[1], texts, folder / name, codec=codec,
                             parameters=parameters, batch_size=3)  # fmt: skip
        export_columns(store, path)
        return StoredRows(path, {row["id"]: row for row in rows()})

    return write


class TestStoredLabels:
    @pytest.mark.parametrize(("batch", "parts"), CUTS)
    def test_dense_ones_are_the_live_teacher(
        self, tmp_path, models, stored, expected, batch, parts
    ):
        found, _ = gradients(
            tmp_path, models[0], OBJECTIVE, stored("dense"), batch=batch, parts=parts
        )
        same(found, expected[0], within=1e-5)  # a store holds float32

    def test_a_list_of_all_classes_but_one_is_the_live_teacher_too(
        self, tmp_path, models, stored, expected
    ):
        listed = stored("top_k", k=VOCABULARY - 1)
        for student in (models[0], Bare(models[0])):
            found, _ = gradients(tmp_path, student, OBJECTIVE, listed, batch=4, parts=2)
            found = {name.removeprefix("inside."): value for name, value in found.items()}
            same(found, expected[0], within=1e-5)

    @pytest.mark.parametrize(("codec", "parameters"), [("top_k", {"k": 4}), ("top_p", {"k": 6}),
                                                       ("sampled", {"draws": 9})])  # fmt: skip
    def test_lists_of_any_length_do_not_depend_on_the_cut(
        self, tmp_path, models, stored, codec, parameters
    ):
        objective = TokenObjective(hard_weight=0.5)
        given = stored(codec, **parameters)
        whole, _ = gradients(tmp_path, models[0], objective, given)
        for batch, parts in CUTS[1:]:
            found, _ = gradients(tmp_path, models[0], objective, given, batch=batch, parts=parts)
            same(found, whole)
        found, _ = gradients(tmp_path, Bare(models[0]), objective, given, batch=4, parts=2)
        same({name.removeprefix("inside."): value for name, value in found.items()}, whole)

    @pytest.mark.parametrize("kind", [Reverse(), Blend(beta=0.5), Skew(skew=0.1)])
    def test_other_divergences_learn_from_lists_and_are_evaluated(
        self, tmp_path, models, stored, kind
    ):
        given = stored("top_k", k=VOCABULARY - 1)
        objective = TokenObjective(divergence=kind)
        taught = trainer(
            tmp_path, copy.deepcopy(models[0]), objective, given, steps=8, eval_dataset=given,
            compute_metrics=lambda told: {"width": told[0].shape[-1]},
        )  # fmt: skip
        before = taught.evaluate()
        assert before["eval_width"] == VOCABULARY
        taught.train()
        assert 0 < taught.evaluate()["eval_loss"] < before["eval_loss"]


class TestWhatDoesNotCount:
    def test_masked_tokens_do_not_matter(self, tmp_path, models):
        student, teacher = models
        given = rows()
        whole, _ = gradients(tmp_path, student, OBJECTIVE, given, teacher=teacher, batch=4, parts=2)
        for row in given:
            row["labels"] = [7] * len(row["input_ids"])
            for at in range(len(row["input_ids"])):
                if row["completion_mask"][at]:
                    row["labels"][at] = row["input_ids"][at]
        found, _ = gradients(tmp_path, student, OBJECTIVE, given, teacher=teacher, batch=4, parts=2)
        same(found, whole, within=0)

    def test_stored_labels_of_masked_tokens_are_not_looked_at(self, tmp_path, models):
        student, teacher = models
        given = rows()
        for row in given:
            row["logits"] = says(teacher)(row).float()
        whole, _ = gradients(tmp_path, student, OBJECTIVE, given)
        for row in given:
            learned = torch.tensor([*row["completion_mask"][1:], 0]).bool()
            row["logits"][~learned] = torch.nan
        for one in (student, Bare(student)):
            found, _ = gradients(tmp_path, one, OBJECTIVE, given)
            found = {name.removeprefix("inside."): value for name, value in found.items()}
            same(found, whole)

    def test_a_part_without_any_counted_token_adds_nothing(self, tmp_path, models):
        student, teacher = models
        given = rows()
        nothing = [{**row, "completion_mask": [0] * len(row["input_ids"])} for row in given[:4]]
        expected, _ = gradients(tmp_path, student, OBJECTIVE, given[4:], teacher=teacher, batch=4)
        for one in (student, Bare(student)):
            found, _ = gradients(
                tmp_path, one, OBJECTIVE, nothing + given[4:], teacher=teacher, batch=4, parts=2
            )
            same({n.removeprefix("inside."): value for n, value in found.items()}, expected)

    @pytest.mark.parametrize("parts", [1, 2])
    def test_a_step_without_any_is_zero(self, tmp_path, models, parts):
        student, teacher = models
        nothing = [{**row, "completion_mask": [0] * len(row["input_ids"])} for row in rows()]
        for one in (student, Bare(student)):
            found, told = gradients(
                tmp_path, one, OBJECTIVE, nothing, teacher=teacher, batch=4, parts=parts
            )
            assert told["loss"] == 0
            assert all(not value.any() for value in found.values())


class TestVocabularies:
    @pytest.mark.parametrize("padded", [VOCABULARY + 8, VOCABULARY - 1])
    def test_a_teacher_of_another_width_is_compared_over_the_common_part(
        self, tmp_path, models, padded
    ):
        student, wide = models[0], llama(16, seed=1, vocabulary=padded)
        common = min(padded, VOCABULARY)
        given = [
            {**row, "input_ids": [min(token, common - 1) for token in row["input_ids"]]}
            for row in rows()
        ]
        found, _ = gradients(tmp_path, student, OBJECTIVE, given, teacher=wide, batch=4, parts=2)
        bare, _ = gradients(tmp_path, Bare(student), OBJECTIVE, given, teacher=Bare(wide))
        same({name.removeprefix("inside."): value for name, value in bare.items()}, found)
        if padded > VOCABULARY:
            cut = by_hand(student, lambda row: says(wide)(row)[:, :VOCABULARY], given)
            same(found, cut[0])
        else:
            assert not found["lm_head.weight"][common:].any()

    def test_widths_that_no_padding_explains_need_the_tokenizers(self, tmp_path, models):
        student, wide = models[0], llama(16, seed=1, vocabulary=2000)
        with pytest.raises(ValueError, match="differ by less than 1024 columns"):
            gradients(tmp_path, student, OBJECTIVE, rows(), teacher=wide)
        token = {f"t{number}": number for number in range(2000)}
        small = {f"t{number}": number for number in range(VOCABULARY)}
        found, _ = gradients(
            tmp_path, student, OBJECTIVE, rows(), teacher=wide,
            processing_class=Words(small), teacher_tokenizer=Words(token),
        )  # fmt: skip
        same(found, by_hand(student, lambda row: says(wide)(row)[:, :VOCABULARY], rows())[0])


def test_only_the_student_is_saved_and_the_teacher_stays_as_it_was(tmp_path, models):
    student, teacher = copy.deepcopy(models[0]), copy.deepcopy(models[1])
    before = copy.deepcopy(teacher.state_dict())
    taught = trainer(tmp_path, student, OBJECTIVE, rows(), teacher=teacher, steps=2)
    taught.train()
    taught.save_model(str(tmp_path / "saved"))
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    same(dict(again.state_dict()), dict(student.state_dict()), within=0)
    same(dict(teacher.state_dict()), dict(before), within=0)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert type(taught).__name__ == "DistilledTrainer"


def test_a_class_made_of_a_trainer_is_taken_too(tmp_path):
    class Mine(transformers.Trainer):
        pass

    made = distilled(Mine, objective=OBJECTIVE)
    assert issubclass(made, Mine)
    assert made.__name__ == "DistilledMine"
