"""Which blocks stay: evenly, by place, by scores, at random."""

import pytest

from understudy.errors import ModelError
from understudy.students.blocks.choice import chosen
from understudy.students.blocks.surgery import Unit


def chain(*stages):
    """Units of several stages, written like `-oo`: one that must stay and two that can go."""
    return tuple(
        Unit(path=f"{stage}.{place}", removable=mark == "o", stage=stage)
        for stage, marks in enumerate(stages)
        for place, mark in enumerate(marks)
    )


RESNET = chain("ooooo", "-oooo", "-oooo")


def places(units, keep, by="evenly", seed=0):
    names = chosen(units, keep, by=by, seed=seed)
    return [place for place, unit in enumerate(units) if unit.path in names]


def test_evenly_is_the_cut_of_distilbert_and_spreads_over_stages():
    assert places(chain("o" * 12), 6) == [0, 2, 4, 7, 9, 11]
    assert places(chain("o" * 6), 3) == [0, 3, 5]
    assert places(chain("o" * 6), 1) == [0]
    assert places(RESNET, 0.5) == [0, 2, 4, 5, 7, 9, 10, 14]
    # Those that must stay count, and stay where none of their stage is due.
    assert places(RESNET, 2) == [5, 10]
    assert places(chain("o-oo-oo"), 3) == [1, 4, 6]
    assert places(RESNET, 1.0) == list(range(15))


def test_a_share_is_rounded_to_the_nearest_number_and_at_least_one():
    for share, count in ((0.01, 1), (0.37, 1), (0.38, 2), (0.62, 2), (0.63, 3), (1.0, 4)):
        assert len(places(chain("oooo"), share)) == count


def test_first_last_and_importance_are_over_the_whole_chain():
    assert places(RESNET, 4, "first") == [0, 1, 5, 10]
    assert places(RESNET, 4, "last") == [5, 10, 13, 14]
    assert places(RESNET, 2, "last") == [5, 10]
    scores = {unit.path: -float(place) for place, unit in enumerate(RESNET) if place != 5}
    assert places(RESNET, 4, scores) == [0, 1, 5, 10]
    scores["2.3"] = 1.0
    assert places(RESNET, 4, scores) == [0, 5, 10, 13]


def test_random_choices_are_a_function_of_the_seed():
    draws = [places(RESNET, 6, "random", seed) for seed in range(5)]
    assert draws == [places(RESNET, 6, "random", seed) for seed in range(5)]
    assert len({tuple(draw) for draw in draws}) == 5
    assert all(len(draw) == 6 and {5, 10} < set(draw) for draw in draws)


REFUSED = {
    "too few": (1, "evenly", r"`keep >= 2` must hold, as 2 of the 15 blocks change the shape"),
    "none": (0, "evenly", r"`1 <= keep <= 15` must hold"),
    "too many": (16, "evenly", r"`1 <= keep <= 15` must hold"),
    "no share": (1.5, "evenly", r"`0 < keep <= 1` must hold"),
    "no place": ([5, 10, 15], "evenly", r"different ones of 0 to 14"),
    "twice": ([5, 5, 10], "evenly", r"different ones of 0 to 14"),
    "protected": ([0, 5], "evenly", r"2\.0 must stay.*add \[10\] to keep=\[0, 5\]"),
    "unmeasured": (3, {"0.0": 1.0}, r"0\.1.*measure them all"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_met_is_refused(name):
    keep, by, law = REFUSED[name]
    with pytest.raises(ModelError, match=law):
        chosen(RESNET, keep, by=by, seed=0)
