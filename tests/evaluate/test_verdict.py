"""The four words, their sentence and the share of the gap."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import DataError
from understudy.evaluate.sentences import Word
from understudy.evaluate.verdict import gap_closed, judge, unproved

ROOT = Path(__file__).parents[2]


def verdict(differences, *, margin=0.5, **settings):
    zeros = np.zeros_like(differences)
    return judge(differences, zeros, higher_is_better=True, margin=margin, **settings)


def test_a_clear_gain_is_helped_and_a_clear_loss_hurt(table):
    assert verdict(table(effect=2.0)).word is Word.HELPED
    assert verdict(table(effect=-2.0)).word is Word.HURT


def test_a_narrow_interval_around_zero_is_no_difference(table):
    assert verdict(table(rows=5000)).word is Word.NO_DIFFERENCE


def test_a_wide_interval_around_zero_is_undecided(table):
    assert verdict(table(seed_noise=5.0)).word is Word.UNDECIDED


@given(st.integers(1, 7), st.floats(-2, 2), st.floats(0, 2), st.floats(0, 1), st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_the_word_follows_from_interval_margin_and_seeds(seeds, effect, noise, margin, seed):
    rng = np.random.default_rng(seed)
    differences = effect + noise * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, 30))
    found = verdict(differences, margin=margin)
    if seeds < 3:
        assert found.word is Word.UNDECIDED
        return
    assert found.low <= found.effect <= found.high
    expected = Word.UNDECIDED
    if found.low > 0:
        expected = Word.HELPED
    elif found.high < 0:
        expected = Word.HURT
    elif -margin <= found.low and found.high <= margin:
        expected = Word.NO_DIFFERENCE
    assert found.word is expected


@given(st.integers(3, 6), st.floats(-1, 1), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_swapping_the_arms_or_the_way_up_turns_the_verdict(seeds, effect, seed):
    rng = np.random.default_rng(seed)
    student, control = effect + rng.normal(size=(seeds, 40)), rng.normal(size=(seeds, 40))
    one = judge(student, control, higher_is_better=True, margin=0.1)
    swapped = judge(control, student, higher_is_better=True, margin=0.1)
    turned = judge(student, control, higher_is_better=False, margin=0.1)
    assert one.effect == pytest.approx(-swapped.effect)
    assert one.low == pytest.approx(-swapped.high)
    assert swapped.word is turned.word
    assert {Word.HELPED: Word.HURT, Word.HURT: Word.HELPED}.get(one.word, one.word) is swapped.word


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_never_decided(table, seeds):
    found = verdict(table(seeds=seeds, effect=100.0, noise=0.001))
    assert found.word is Word.UNDECIDED
    assert found.seeds_needed == 3
    assert "A verdict needs at least 3." in found.sentence


def test_one_seed_has_an_effect_but_no_interval(table):
    found = verdict(table(seeds=1, effect=2.0))
    assert found.effect == pytest.approx(2.0, abs=0.3)
    assert (found.low, found.high, found.degrees_of_freedom) == (None, None, None)


def test_arms_that_answer_the_same_are_no_difference_without_width():
    rows = np.random.default_rng(0).normal(size=(4, 25))
    found = judge(rows, rows, higher_is_better=True, margin=0.0)
    assert found.word is Word.NO_DIFFERENCE
    assert (found.low, found.effect, found.high) == (0.0, 0.0, 0.0)
    assert "is the same with and without the teacher" in found.sentence


@pytest.mark.parametrize(
    ("rows", "word"), [(30, Word.UNDECIDED), (290, Word.UNDECIDED), (310, Word.NO_DIFFERENCE)]
)
def test_rows_without_a_disagreement_prove_no_more_than_they_are(rows, word):
    right = np.ones((3, rows))
    found = judge(right, right, higher_is_better=True, margin=0.01, unit="share")
    assert found.word is word
    assert found.high == -found.low == pytest.approx(1 - 0.05 ** (1 / rows))
    if word is Word.UNDECIDED:
        assert found.seeds_needed is None
        assert found.rows_needed in (299, 300)
        assert "about 300 rows would" in found.sentence


@pytest.mark.parametrize(("rows", "margin"), [(10, 0.01), (100, 0.01), (2, 1e-5), (50, 1e-5)])
def test_the_rows_that_would_decide_do(rows, margin):
    for control in (np.zeros((3, rows)), np.ones((3, rows))):
        found = judge(
            np.ones((3, rows)), control, higher_is_better=True, margin=margin, unit="share"
        )
        if found.word is Word.UNDECIDED:
            one = np.ones((3, found.rows_needed))
            enough = judge(
                one, one * control[0, 0], higher_is_better=True, margin=margin, unit="share"
            )
            assert enough.word is not Word.UNDECIDED


def test_one_row_of_ten_is_said_to_need_more_rows():
    control = np.ones((3, 10))
    control[:, 0] = 0
    found = judge(np.ones((3, 10)), control, higher_is_better=True, margin=0.01, unit="share")
    assert found.word is Word.UNDECIDED
    assert found.rows_needed > 10
    assert "rows would" in found.sentence


def test_two_rows_prove_nothing_and_two_that_differ_little_more():
    found = judge(
        np.ones((3, 2)), np.zeros((3, 2)), higher_is_better=True, margin=0.01, unit="share"
    )
    assert found.word is Word.UNDECIDED
    student, control = np.ones((3, 100)), np.ones((3, 100))
    control[:, :2] = 0
    few = judge(student, control, higher_is_better=True, margin=0.01, unit="share")
    assert few.high - few.effect >= 1 - 0.05 ** (1 / 100)


def test_a_gain_within_the_margin_is_helped_and_called_small(table):
    found = verdict(table(rows=5000, effect=0.2), margin=1.0)
    assert found.word is Word.HELPED
    assert found.sentence.endswith("This is smaller than the margin of 1.")


def test_an_undecided_verdict_says_how_many_seeds_would_decide(table):
    found = verdict(table(seeds=4, effect=0.3, seed_noise=1.0), margin=0.01)
    assert found.word is Word.UNDECIDED
    assert found.seeds_needed > 4
    assert f"About {found.seeds_needed} seeds on the same rows would decide" in found.sentence


def test_where_seeds_cannot_decide_it_says_how_many_rows(table):
    found = verdict(table(rows=100, effect=0.3, row_noise=3.0, noise=0.1), margin=0.01)
    assert (found.word, found.seeds_needed) == (Word.UNDECIDED, None)
    assert found.rows_needed > 100
    assert "More seeds alone cannot decide, but about" in found.sentence


def test_where_nothing_alone_decides_it_says_so():
    signs = np.where(np.arange(10) < 5, 1.0, -1.0)
    found = verdict(np.tile(signs, (4, 1)), margin=0.0)
    assert (found.seeds_needed, found.rows_needed) == (None, None)
    assert "or a wider margin" in found.sentence


def test_a_share_is_told_in_points():
    student = np.tile(np.repeat([1.0, 0.0], [90, 10]), (3, 1))
    control = np.tile(np.repeat([1.0, 0.0], [60, 40]), (3, 1))
    found = judge(
        student, control, higher_is_better=True, margin=0.01, name="accuracy", unit="share"
    )
    assert found.sentence == (
        "The teacher helped: with the teacher, accuracy is 30.00 points better than without "
        "(95% interval +20.86 to +39.14, 3 seeds, 100 rows)."
    )


def test_effects_per_seed_average_to_the_effect(table):
    found = verdict(table(effect=0.4, seed_noise=1.0))
    assert len(found.per_seed) == found.seeds == 5
    assert np.mean(found.per_seed) == pytest.approx(found.effect)


def test_a_higher_level_is_a_wider_interval(table):
    wide, narrow = verdict(table(), level=0.99), verdict(table(), level=0.9)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_missing_comparison_is_undecided_and_says_why():
    found = unproved("no control was trained")
    assert (found.word, found.sentence) == (Word.UNDECIDED, "Undecided: no control was trained.")
    assert (found.effect, found.low, found.seeds, found.per_seed) == (None, None, None, ())


@pytest.mark.parametrize("shape", [(2, 5), (3, 4)])
def test_arms_of_other_shapes_are_refused(shape):
    with pytest.raises(DataError, match="same seeds on the same rows"):
        judge(np.zeros((3, 5)), np.zeros(shape), higher_is_better=True, margin=0.1)


@pytest.mark.parametrize("shape", [(0, 5), (3, 1)])
def test_no_seeds_and_one_row_are_refused(shape):
    with pytest.raises(DataError, match="at least two"):
        verdict(np.zeros(shape))


def test_rows_without_a_value_are_refused(table):
    broken = table()
    broken[0, 0] = np.nan
    with pytest.raises(DataError, match="1 of 1000 are not"):
        verdict(broken)


@pytest.mark.parametrize(("margin", "level"), [(-0.1, 0.95), (float("nan"), 0.95), (0.1, 1.0)])
def test_margin_and_level_have_laws(table, margin, level):
    with pytest.raises(DataError, match="`margin >= 0` and `0 < level < 1`"):
        verdict(table(), margin=margin, level=level)


def arms(seeds=5, rows=400):
    rng = np.random.default_rng(0)
    control = rng.normal(size=(seeds, rows))
    return np.full(rows, 2.0), control + 0.5, control


@pytest.mark.parametrize("up", [True, False])
def test_the_gap_closed_is_the_share_of_the_way(up):
    teacher, student, control = (one if up else -one for one in arms())
    found = gap_closed(teacher, student, control, higher_is_better=up)
    assert found == pytest.approx(0.5 / (2.0 - arms()[2].mean()))
    assert gap_closed(teacher[None], student, control, higher_is_better=up) == found


def test_a_student_that_is_the_teacher_closes_the_gap_and_one_that_is_the_control_none_of_it():
    teacher, _, control = arms()
    same = np.broadcast_to(teacher, control.shape)
    assert gap_closed(teacher, same, control, higher_is_better=True) == pytest.approx(1.0)
    assert gap_closed(teacher, control, control, higher_is_better=True) == 0.0


def test_there_is_no_gap_unless_the_teacher_is_clearly_better():
    _, student, control = arms()
    level = np.full(control.shape[1], control.mean())
    assert gap_closed(level, student, control, higher_is_better=True) is None
    assert gap_closed(level - 2.0, student, control, higher_is_better=True) is None
    one = slice(0, 1)
    assert gap_closed(level + 9, student[one], control[one], higher_is_better=True) is None


def test_a_teacher_on_other_rows_is_refused():
    _, student, control = arms()
    with pytest.raises(DataError, match="one value for each of the 400 rows"):
        gap_closed(np.zeros(399), student, control, higher_is_better=True)


def test_the_manual_shows_the_table_that_was_measured(simulation):
    figures = json.loads((ROOT / "benchmarks/results/verdict_simulation.json").read_text())
    assert simulation.table(figures["figures"]) in (ROOT / "docs/verdict.md").read_text()


def test_the_manual_s_example_runs(capsys):
    code = (ROOT / "docs/verdict.md").read_text().split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/verdict.md", "exec"), {})
    assert capsys.readouterr().out.startswith("The teacher helped")
