"""Features against features: what a head's rows say of two models, over seeds, draws and rows."""

import numpy as np
import pytest

from understudy.errors import DataError
from understudy.evaluate.crossed import mean_squares, spread
from understudy.evaluate.sentences import Word
from understudy.evaluate.transfer import compare_features, crossed_half_width


def components(rng, shape, *, seeds=0.0, draws=0.0, rows=0.0, pairs=0.0, rest=1.0):
    """A table of three crossed random effects and what they do together."""
    many, drawn, long = shape
    sizes = [((many, 1, 1), seeds), ((1, drawn, 1), draws), ((1, 1, long), rows)]
    sizes += [((many, drawn, 1), pairs), ((many, 1, long), pairs), ((1, drawn, long), pairs)]
    return sum((s * rng.normal(size=size) for size, s in [*sizes, (shape, rest)]), np.zeros(shape))


def compare(one, other, **settings):
    given = {"higher_is_better": True, "margin": 0.1} | settings
    return compare_features(one, other, **given)


@pytest.mark.parametrize(
    "noise",
    [
        {"rest": 1.0},
        {"seeds": 1.0},
        {"draws": 1.0},
        {"rows": 1.0},
        {"seeds": 0.2, "draws": 0.2, "rows": 0.7, "pairs": 0.5},
    ],
)
def test_the_interval_misses_nothing_in_at_most_about_5_per_cent(noise):
    rng = np.random.default_rng(7)
    tables = [components(rng, (3, 5, 60), **noise) for _ in range(400)]
    missed = sum(abs(t.mean()) > crossed_half_width(t) for t in tables)
    # 20 expected where it is exact; 34 is more than three standard errors above.
    assert missed <= 34


def test_an_interval_that_knew_nothing_of_draws_would_claim_too_much():
    rng = np.random.default_rng(3)
    found = {"ours": 0, "without draws": 0}
    for _ in range(200):
        table = components(rng, (3, 5, 60), draws=1.0)
        half = spread(mean_squares(table.mean(axis=1)), seeds=3, rows=60, level=0.95).half_width
        found["ours"] += abs(table.mean()) > crossed_half_width(table)
        found["without draws"] += abs(table.mean()) > float(half)
    assert found["ours"] <= 20 < 100 < found["without draws"]


def test_mean_squares_are_those_of_a_textbook_table():
    rng = np.random.default_rng(1)
    table = components(rng, (4, 3, 6), seeds=2.0, draws=1.0, rows=1.0, pairs=1.0)
    # The whole sum of squares, split into the parts by projections.
    effects = {(): np.full(table.shape, table.mean())}
    for kept in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        gone = tuple(axis for axis in range(3) if axis not in kept)
        mean = table.mean(axis=gone, keepdims=True) if gone else table
        below = [e for key, e in effects.items() if set(key) < set(kept)]
        effects[kept] = np.broadcast_to(mean, table.shape) - sum(below)
    squares = {
        key: float((effect**2).sum()) / float(np.prod([table.shape[a] - 1 for a in key]))
        for key, effect in effects.items()
        if key
    }
    mains = [squares[(axis,)] for axis in range(3)]
    pairs = squares[0, 1] + squares[0, 2] + squares[1, 2]
    total = max(sum(mains) - pairs + squares[0, 1, 2], *mains)
    half = crossed_half_width(table, level=0.95)
    quantile = half / np.sqrt(total / table.size)
    # Between the quantiles of t with 5 and with 2 degrees of freedom.
    assert 2.5705 <= quantile <= 4.3027


def test_with_one_seed_the_interval_is_that_of_draws_and_rows():
    rng = np.random.default_rng(2)
    table = components(rng, (1, 5, 40), draws=1.0, rows=1.0)
    told = spread(mean_squares(table[0]), seeds=5, rows=40, level=0.9).half_width
    assert crossed_half_width(table, level=0.9) == pytest.approx(float(told))


def test_equal_values_have_no_interval_to_speak_of():
    assert crossed_half_width(np.ones((3, 4, 5))) == 0.0


def test_better_features_helped_and_worse_ones_hurt():
    rng = np.random.default_rng(0)
    control = components(rng, (3, 5, 200), rest=0.3)
    better = control + 1.0 + components(rng, (3, 5, 200), rest=0.3)
    found = compare(better, control)
    assert found.word is Word.HELPED
    assert found.low < found.effect < found.high
    assert (found.seeds, found.draws, found.rows) == (3, 5, 200)
    assert (found.margin, found.level) == (0.1, 0.95)
    assert len(found.per_seed) == 3
    assert len(found.per_draw) == 5
    turned = compare(control, better)
    assert turned.word is Word.HURT
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_a_score_that_is_better_low_turns_the_sign():
    rng = np.random.default_rng(0)
    control = components(rng, (3, 5, 100), rest=0.1)
    assert compare(control - 1.0, control, higher_is_better=False).word is Word.HELPED


def test_the_same_features_make_no_difference():
    values = np.random.default_rng(0).normal(size=(3, 5, 100))
    found = compare(values, values)
    assert found.word is Word.NO_DIFFERENCE
    assert found.effect == 0.0


def test_two_seeds_never_decide_and_one_has_no_interval():
    values = np.random.default_rng(0).normal(size=(2, 5, 100))
    two = compare(values + 9.0, values)
    assert two.word is Word.UNDECIDED
    assert two.low is not None
    assert "at least 3 seeds" in two.sentence
    one = compare(values[:1] + 9.0, values[:1])
    assert one.word is Word.UNDECIDED
    assert one.low is None


def test_a_teacher_meets_every_seed():
    rng = np.random.default_rng(0)
    teacher, student = np.ones((1, 5, 100)), components(rng, (3, 5, 100), rest=0.1)
    found = compare(teacher, student, names=("teacher", "student"))
    assert found.word is Word.HELPED
    assert found.seeds == 3
    assert found.effect == pytest.approx(1.0 - student.mean())


def test_the_sentence_says_points_draws_and_both_names():
    values = np.zeros((3, 5, 100))
    told = compare(values + 0.025, values, unit="share", score="accuracy").sentence
    assert "2.50 points better in accuracy than one on the control's" in told
    assert "3 seeds, 5 draws, 100 rows" in told
    assert told.startswith("The student's features are better for the other task")


def test_what_is_not_paired_is_refused():
    values = np.zeros((3, 5, 10))
    for other in (np.zeros((2, 5, 10)), np.zeros((3, 4, 10)), np.zeros((3, 5, 9))):
        with pytest.raises(DataError, match="same seeds"):
            compare(values, other)
    with pytest.raises(DataError, match="finite"):
        compare(np.full((3, 5, 10), np.nan), values)
    with pytest.raises(DataError, match="draws >= 2"):
        compare(values[:, :1], values[:, :1])
