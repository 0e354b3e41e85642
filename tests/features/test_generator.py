"""Masked features, regenerated."""

import pytest
import torch
from torch import nn

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.generator import Generate


def spatial(student, teacher):
    return Generate(student, teacher, masking="spatial", ratio=0.3)


class TestGenerate(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Generate,
            student=[(4, 6, 8), (3, 2, 3), (7, 4), (4,)],
            teacher=[(5, 3, 4), (3, 4, 6), (7, 6), (3,)],
            gives=[(5, 3, 4), (3, 4, 6), (7, 6), (3,)],
            drawn=True,
        )


class TestSpatial(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=spatial,
            student=[(4, 6, 8), (7, 4)],
            teacher=[(5, 3, 4), (7, 6)],
            gives=[(5, 3, 4), (7, 6)],
            drawn=True,
        )


def masked(adapter, features):
    """What the generator gets, seen by putting nothing in its place."""
    adapter.aligns[0] = nn.Identity()
    adapter.generators[0] = nn.Identity()
    return adapter([features], [features], batch_of([features])).student[0]


@pytest.mark.parametrize(("shape", "axes"), [((40, 4, 6), (2, 3)), ((6, 40), (1,))])
def test_whole_channels_are_hidden_and_the_rest_is_not_scaled(shape, axes):
    torch.manual_seed(3)
    seen = masked(Generate([shape], [shape], ratio=0.25), torch.ones(50, *shape))
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert ((seen.mean(dim=axes) == 0) | (seen.mean(dim=axes) == 1)).all()
    assert seen.mean().item() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(("shape", "axis"), [((5, 8, 6), 1), ((48, 5), 2)])
def test_whole_places_are_hidden(shape, axis):
    torch.manual_seed(3)
    seen = masked(spatial([shape], [shape]), torch.ones(50, *shape))
    assert ((seen.mean(dim=axis) == 0) | (seen.mean(dim=axis) == 1)).all()
    assert seen.mean().item() == pytest.approx(0.7, abs=0.03)


def test_each_call_hides_something_else_and_a_seed_repeats_it():
    adapter = Generate([(40,)], [(40,)])
    (own,) = rows_of([(40,)], 4, torch.Generator().manual_seed(0))

    def made(seed=None):
        if seed is not None:
            torch.manual_seed(seed)
        return adapter([own], [own], batch_of([own])).student[0]

    assert not torch.equal(made(1), made())
    assert torch.equal(made(1), made(1))


def test_channels_that_are_equal_are_not_aligned():
    assert len(Generate([(4, 2, 3)], [(4, 2, 3)]).aligns[0]) == 0
    assert isinstance(Generate([(4, 2, 3)], [(5, 2, 3)]).aligns[0][0], nn.Conv2d)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5])
def test_a_ratio_that_hides_nothing_or_everything_is_refused(ratio):
    with pytest.raises(ModelError, match="0 < ratio < 1"):
        Generate([(4,)], [(4,)], ratio=ratio)


@pytest.mark.parametrize(
    ("own", "goal", "law"),
    [((4,), (5,), "masking: channel"), ((4,), (5, 2, 3), "one kind"), ((7, 4), (8, 4), "one kind")],
)
def test_what_has_no_places_or_other_places_is_refused(own, goal, law):
    with pytest.raises(ModelError, match=law):
        spatial([own], [goal])


def test_an_unknown_masking_is_refused(as_users_run_it):
    with pytest.raises(ModelError, match="channel"):
        Generate([(4,)], [(4,)], masking="rows")
