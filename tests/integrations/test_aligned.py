"""Our objective in Hugging Face's loop, with a teacher of another vocabulary."""

import pytest
import torch

from understudy.integrations.transformers import TokenObjective
from understudy.losses import hard_label, soft_target_kl
from understudy.losses.vocabulary import (
    Alignment,
    DenseLabels,
    HiddenLabels,
    LinearHead,
    map_vocabularies,
)

OWN = {"a": 0, "b": 1, "c": 2, "d": 3, "<own>": 4}
THEIRS = {"d": 0, "c": 1, "b": 2, "a": 3}
PLAN = map_vocabularies(OWN, THEIRS, student_width=8, teacher_width=6, least=0.8)
LABELS = torch.tensor([0, 3, 4, -100, 2])


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_logits_and_hidden_states_give_the_shared_tokens_loss():
    hidden, weight, goal = drawn(5, 3, seed=0), drawn(8, 3, seed=1), drawn(5, 6, seed=2)
    objective = TokenObjective(
        temperature=2.0, hard_weight=0.5, alignment=Alignment(vocabulary=PLAN)
    )
    own = hidden @ weight.T
    states = HiddenLabels(hidden=hidden, head=LinearHead(weight=weight))
    rows = torch.tensor([0, 1, 4])
    mine, theirs = own[rows][:, :4], goal[rows][:, [3, 2, 1, 0]]
    wanted = soft_target_kl(mine, theirs, temperature=2.0) + 0.5 * hard_label(mine, LABELS[rows])
    for student in (own, states):
        told = objective(student, LABELS, DenseLabels(logits=goal))
        assert torch.allclose(told.loss, wanted.mean())
        assert told.counted.tolist() == [True, True, False, False, True]


def test_the_control_learns_the_same_tokens():
    own = drawn(5, 8, seed=0)
    control = TokenObjective(soft_weight=0, hard_weight=1, alignment=Alignment(vocabulary=PLAN))
    rows = torch.tensor([0, 1, 4])
    assert torch.allclose(
        control(own, LABELS, None).loss, hard_label(own[rows][:, :4], LABELS[rows]).mean()
    )


def test_two_ways_of_saying_what_is_shared_are_refused():
    with pytest.raises(ValueError, match="leave `vocabulary` out"):
        TokenObjective(vocabulary=4, alignment=Alignment(vocabulary=PLAN))
    both = Alignment(vocabulary=PLAN, masked="rest")
    objective = TokenObjective(temperature=2.0, hard_weight=1.0, alignment=both)
    with pytest.raises(ValueError, match="use `renormalised`, or `temperature=1`"):
        objective(drawn(5, 8, seed=0), LABELS, DenseLabels(logits=drawn(5, 6, seed=2)))


def test_a_trainer_reads_the_text_in_the_teachers_numbers(tmp_path):
    pytest.importorskip("transformers")
    from transformers import Trainer, TrainingArguments

    from integrations.models import llama
    from understudy.integrations.transformers import TokenCollator, distilled

    words = {f"t{number}": number for number in range(30)}
    turned = {word: 29 - number for word, number in words.items()}
    student, teacher = llama(16, vocabulary=32), llama(16, vocabulary=30)
    plan = map_vocabularies(words, turned, student_width=32)
    seen = []

    def asked(input_ids, attention_mask):
        seen.append(input_ids)
        return teacher(input_ids=input_ids, attention_mask=attention_mask)

    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    objective = TokenObjective(alignment=Alignment(vocabulary=plan))
    made = distilled(Trainer, objective=objective, teacher=asked)(
        model=student, args=arguments, data_collator=TokenCollator(pad=31),
        train_dataset=[{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}],
    )  # fmt: skip
    made.train()
    read = sorted(tuple(row) for row in seen[0].tolist())
    # Padding is not read, so it may be any token: the first one that both know.
    assert read == [(25, 24, 29), (28, 27, 26)]
