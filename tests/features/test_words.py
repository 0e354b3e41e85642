"""Features of two tokenizers, averaged over the words that both see whole."""

import pytest
import torch

from understudy.contracts import Batch
from understudy.errors import ModelError, TrainingError
from understudy.features.words import Words, pool_words

OWN = torch.tensor([[-1, 0, 0, 1, -1], [0, -1, -1, -1, -1], [-1, -1, -1, -1, -1]])
THEIRS = torch.tensor([[0, 1, 1, 1], [-1, 0, 0, -1], [-1, -1, -1, -1]])
IDS = torch.tensor([30, 10, 20])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(width=3):
    return Words([(5, 2)], [(4, width)], ids=IDS, student_words=OWN, teacher_words=THEIRS).double()


def batch(ids):
    return Batch(inputs=torch.zeros(len(ids), 1), ids=torch.tensor(ids))


def test_a_word_is_the_mean_of_its_tokens_and_of_nothing_else():
    states = drawn(3, 5, 2).requires_grad_()
    with torch.no_grad():
        states[:, 4] = torch.nan
        states[2] = torch.inf
    found = pool_words(states, OWN, 2)
    wanted = torch.zeros(3, 2, 2).double()
    wanted[0, 0] = (states[0, 1] + states[0, 2]) / 2
    wanted[0, 1], wanted[1, 0] = states[0, 3], states[1, 0]
    assert torch.allclose(found, wanted)
    found.sum().backward()
    assert bool((states.grad[OWN < 0] == 0).all())


def test_both_sides_have_as_many_words_whatever_the_order_of_rows():
    words = made()
    own, goal = drawn(3, 5, 2), drawn(3, 4, 3, seed=1)
    told = words([own], [goal], batch([30, 10, 20]))
    assert told.mask.tolist() == [[True, True], [True, False], [False, False]]
    assert torch.allclose(told.teacher[0], pool_words(goal, THEIRS, 2))
    assert torch.allclose(told.student[0], words.bridges[0](pool_words(own, OWN, 2)))
    turned = [2, 0, 1]
    again = words([own[turned]], [goal[turned]], batch([20, 30, 10]))
    assert torch.equal(again.student[0], told.student[0][turned])
    assert torch.equal(again.mask, told.mask[turned])


def test_more_padding_changes_nothing_and_less_is_cut():
    words = made()
    own, goal = drawn(3, 5, 2), drawn(3, 4, 3, seed=1)
    told = words([own], [goal], batch([30, 10, 20]))
    longer = [torch.cat([x, torch.full_like(x[:, :3], 7.0)], dim=1) for x in (own, goal)]
    found = words([longer[0]], [longer[1]], batch([30, 10, 20]))
    assert torch.equal(found.student[0], told.student[0])
    assert torch.equal(found.teacher[0], told.teacher[0])
    # A batch of short texts is cut where its longest one ends.
    found = words([own[1:, :1]], [goal[1:, :3]], batch([10, 20]))
    assert torch.equal(found.student[0], told.student[0][1:, :1])


def test_equal_widths_learn_nothing_and_only_the_student_has_a_gradient():
    words = made(width=2)
    assert not list(words.parameters())
    assert not words.state_dict()
    own, goal = drawn(3, 5, 2).requires_grad_(), drawn(3, 4, 2).requires_grad_()
    told = words([own], [goal], batch([30, 10, 20]))
    (told.student[0] - told.teacher[0]).square().sum().backward()
    assert own.grad is not None
    assert goal.grad is None


def test_rows_without_shared_words_have_one_that_is_masked():
    told = made()([drawn(1, 5, 2)], [drawn(1, 4, 3)], batch([20]))
    assert told.mask.tolist() == [[False]]


def test_what_is_refused():
    with pytest.raises(TrainingError, match="those of row 11 were not"):
        made()([drawn(1, 5, 2)], [drawn(1, 4, 3)], batch([11]))
    with pytest.raises(TrainingError, match="these rows have none"):
        made()([drawn(1, 5, 2)], [drawn(1, 4, 3)], Batch(inputs=torch.zeros(1, 1)))
    with pytest.raises(ModelError, match=r"name\s+layers of the encoder before its pooling"):
        Words([(2,)], [(3,)], ids=IDS, student_words=OWN, teacher_words=THEIRS)
    with pytest.raises(ModelError, match="3 ids, 2 rows of the student"):
        Words([(5, 2)], [(4, 3)], ids=IDS, student_words=OWN[:2], teacher_words=THEIRS)
