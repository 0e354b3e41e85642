"""Rows of tokens and stored labels become one batch."""

import pytest
import torch

from understudy.errors import DataError
from understudy.integrations.transformers import TokenCollator
from understudy.integrations.transformers.collating import labels_of, told_in
from understudy.losses.vocabulary import DenseLabels, ListedLabels

LISTED = {
    "logits_ids": [[3, 1], [2], [0, 4]],
    "logits_logprobs": [[-0.5, -1.5], [-0.1], [-1.0, -2.0]],
    "logits_rest": [-1.7, -2.4, -0.7],
}


def test_rows_are_padded_at_the_end_and_padding_does_not_count():
    rows = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9], "completion_mask": [0, 1]}]
    batch = TokenCollator(pad=2)(rows)
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 9, 2]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[5, 6, 7], [-100, 9, -100]],
    }


def test_labels_of_ones_own_are_kept():
    batch = TokenCollator()([{"input_ids": [5, 6, 7], "labels": [-100, 1, 7]}])
    assert batch["labels"].tolist() == [[-100, 1, 7]]


@pytest.mark.parametrize("form", ["lists", "tensors"])
def test_lists_of_different_length_are_filled_up(form):
    told = dict(LISTED)
    if form == "tensors":
        told["logits_ids"] = torch.tensor([[3, 1], [2, -1], [0, 4]])
        told["logits_logprobs"] = torch.tensor([[-0.5, -1.5], [-0.1, -torch.inf], [-1.0, -2.0]])
        told["logits_rest"] = torch.tensor(told["logits_rest"])
    one = {"input_ids": [5, 6, 7], **told}
    other = {
        "input_ids": [8, 9],
        "logits_ids": [[1, 2, 3], [0]],
        "logits_logprobs": [[-1.0, -2.0, -3.0], [0.0]],
        "logits_rest": [-1.0, -9.0],
    }
    batch = TokenCollator()([one, other])
    assert batch["teacher_ids"].tolist() == [
        [[3, 1, -1], [2, -1, -1], [0, 4, -1]],
        [[1, 2, 3], [0, -1, -1], [-1, -1, -1]],
    ]
    low = -torch.inf
    expected = [
        [[-0.5, -1.5, low], [-0.1, low, low], [-1.0, -2.0, low]],
        [[-1.0, -2.0, -3.0], [0.0, low, low], [low, low, low]],
    ]
    assert torch.equal(batch["teacher_log_probs"], torch.tensor(expected))
    tail = torch.tensor([[-1.7, -2.4, -0.7], [-1.0, -9.0, low]])
    assert torch.equal(batch["teacher_tail"], tail)
    labels = labels_of(told_in(batch))
    assert isinstance(labels, ListedLabels)
    assert labels.ids.shape == (4, 3)
    assert labels.rest.tolist() == pytest.approx([-1.7, -2.4, -1.0, -9.0])
    assert not labels.sampled
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]


def test_sampled_ones_bring_weights_and_entropy():
    row = {
        "input_ids": [5, 6],
        "logits_ids": [[3, 1], [2]],
        "logits_weights": [[0.75, 0.25], [1.0]],
        "logits_entropy": [0.6, 0.1],
    }
    labels = labels_of(told_in(TokenCollator()([row])))
    assert labels.sampled
    torch.testing.assert_close(labels.log_mass.exp(), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(labels.entropy, torch.tensor([0.6]))


def test_dense_ones_and_a_field_of_another_name():
    rows = [
        {"input_ids": [5, 6, 7], "words": torch.arange(12.0).reshape(3, 4)},
        {"input_ids": [8, 9], "words": torch.ones(1, 4).tolist()},  # the last one is missing
    ]
    batch = TokenCollator(field="words")(rows)
    labels = labels_of(told_in(batch))
    assert isinstance(labels, DenseLabels)
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert labels.logits.tolist() == expected


def test_rows_longer_than_the_context_are_cut_with_their_labels():
    long = {"input_ids": [5, 6, 7], "completion_mask": [1, 1, 1], **LISTED}
    cut = {"input_ids": [5, 6], **{name: value[:2] for name, value in LISTED.items()}}
    found, expected = TokenCollator(length=2)([long]), TokenCollator()([cut])
    assert {n: v.tolist() for n, v in found.items()} == {n: v.tolist() for n, v in expected.items()}
    with pytest.raises(ValueError, match="`length >= 2` must hold, but got 1"):
        TokenCollator(length=1)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"labels": [1]}, "every row must have `input_ids`, but row 7 has id, labels"),
        ({"input_ids": [5, 6], "labels": [1]}, "one entry of `labels` per token, but row 7 has 1"),
        (
            {"input_ids": [5, 6], "completion_mask": [1, 0, 1]},
            "one entry of `completion_mask` per token, but row 7 has 3 and 2 tokens",
        ),
        (
            {"input_ids": [5], **LISTED},
            "one entry of `logits_ids` per token, but row 7 has 3 entries and 1 tokens",
        ),
        (
            {"input_ids": [5] * 5, **LISTED},
            "one entry of `logits_ids` per token, but row 7 has 3 entries and 5 tokens",
        ),
    ],
)
def test_rows_that_do_not_fit(row, told):
    with pytest.raises(DataError, match=told):
        TokenCollator()([{"id": 7, **row}])


def test_a_row_without_the_labels_that_others_have():
    with pytest.raises(DataError, match="every row must have `logits_ids`, but row  has input_ids"):
        TokenCollator()([{"input_ids": [5, 6, 7], **LISTED}, {"input_ids": [5, 6]}])


def test_a_list_without_its_masses():
    batch = {"teacher_ids": torch.zeros(1, 2, 3, dtype=torch.int64)}
    with pytest.raises(DataError, match="but the batch has teacher_ids"):
        labels_of(told_in(batch))
    assert labels_of({}) is None
