"""Stored outcomes in a student's numbers."""

import pytest
import torch

from understudy.contracts import Outcomes
from understudy.labels.aligned import aligned_outcomes
from understudy.losses import outcome_kl, soft_target_kl
from understudy.losses.vocabulary import Alignment, map_vocabularies
from understudy.losses.vocabulary.aligned import shared_logits

PLAN = map_vocabularies(
    {"a": 0, "b": 1, "own": 2, "c": 3},
    {"c": 0, "its": 1, "b": 2, "a": 3},
    student_width=6,
    least=0.5,
)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stored(logits):
    log_mass, ids = logits.log_softmax(dim=1).sort(dim=1)
    nothing = torch.full((len(logits),), -torch.inf, dtype=torch.float64)
    return Outcomes(ids=ids, log_mass=log_mass, rest=nothing, classes=logits.shape[1])


@pytest.mark.parametrize("masked", ["renormalised", "rest"])
def test_a_stored_list_says_what_logits_say(masked):
    own, goal = drawn(5, 6, seed=0), drawn(5, 4, seed=1)
    rest = masked == "rest"
    told = aligned_outcomes(stored(goal), Alignment(vocabulary=PLAN, masked=masked))
    assert told.classes == (6 if rest else 3)
    mine = own if rest else shared_logits(own, PLAN.student)
    found = outcome_kl(mine, told.ids, told.log_mass, told.rest, temperature=1.0)
    both = (shared_logits(x, c, rest=rest) for x, c in ((own, PLAN.student), (goal, PLAN.teacher)))
    assert torch.allclose(found, soft_target_kl(*both, temperature=1.0), atol=1e-10, rtol=0)


def test_the_same_vocabulary_changes_nothing():
    words = {"a": 0, "b": 1, "c": 2, "d": 3}
    told = stored(drawn(5, 4, seed=1))
    for masked in ("renormalised", "rest"):
        both = Alignment(vocabulary=map_vocabularies(words, words), masked=masked)
        found = aligned_outcomes(told, both)
        assert torch.equal(found.ids, told.ids)
        assert torch.equal(found.log_mass, told.log_mass)
        assert torch.equal(found.rest, told.rest)
        assert found.classes == told.classes


def test_a_store_of_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match=r"`classes <= 4` must hold, .* knows 9 classes"):
        aligned_outcomes(stored(drawn(5, 9, seed=1)), Alignment(vocabulary=PLAN))
