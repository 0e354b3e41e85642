"""Masses as whole steps: nothing is lost, and nobody is more than a step off."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.labels.codecs.steps import COARSEST, FEWEST, FINEST, deal, fineness

quickly = settings(max_examples=100, deadline=None)


@st.composite
def distributions(draw):
    """Rows of masses, the largest first, those below `FEWEST` of the finest step taken out."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.floats(0.0, 30.0))
    mass = np.exp(scale * generator.standard_normal((4, draw(st.integers(2, 70)))))
    if draw(st.booleans()):
        mass[:, -1] = 0.0
    mass /= mass.sum(axis=1, keepdims=True)
    classes, rest = -np.sort(-mass[:, :-1], axis=1), mass[:, -1]
    small = classes < FEWEST * 2.0**-FINEST
    small[:, 0] = False
    rest = rest + np.where(small, classes, 0).sum(axis=1)
    return np.where(small, 0, classes), rest


@quickly
@given(distributions())
def test_steps_sum_to_one_and_are_at_most_one_off(case):
    mass, rest = case
    fine = fineness(mass, rest)
    assert fine.min() >= COARSEST
    assert fine.max() <= FINEST
    steps = deal(mass, rest, fine)
    assert steps.sum(axis=1).tolist() == (1 << fine).tolist()
    due = np.concatenate([mass, rest[:, None]], axis=1) * (1 << fine)[:, None]
    assert np.abs(steps - due).max() <= 1 + 1e-9
    assert (steps[:, 0] >= 1).all()
    assert ((steps[:, -1] == 0) == (rest == 0)).all()
    others = steps[:, 1:-1]
    assert (others[mass[:, 1:] > 0] >= FEWEST).all()
    assert (others[mass[:, 1:] == 0] == 0).all()


def test_the_step_is_half_of_the_smallest_mass_rounded_down_to_a_power_of_2():
    mass = np.array([[0.5, 0.25], [0.9, 0.001], [0.9, 0.0], [0.9, 2.0**-16]])
    assert fineness(mass, np.full(4, 0.1)).tolist() == [10, 11, 10, 17]


def test_a_faint_rest_makes_the_step_finer_and_is_kept():
    mass = np.array([[1.0 - 1e-4]])
    fine = fineness(mass, np.array([1e-4]))
    assert fine.tolist() == [13]
    assert deal(mass, np.array([1e-4]), fine).tolist() == [[8191, 1]]
    faintest = np.array([1e-300])
    assert deal(np.array([[1.0]]), faintest, fineness(np.array([[1.0]]), faintest)).tolist() == [
        [2**FINEST - 1, 1]
    ]


def test_even_masses_share_what_rounding_leaves():
    mass, rest = np.full((1, 50), 1 / 50), np.zeros(1)
    steps = deal(mass, rest, np.array([10]))
    assert sorted(set(steps[0, :-1].tolist())) == [20, 21]
    assert steps.sum() == 1024
