import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from understudy.blockwise.front import latency_error, pareto, rank_correlation, undominated
from understudy.blockwise.recombine import Choice, Menu, Option
from understudy.errors import DataError, ModelError


def menu_of(table, rest=None):
    """Options from `(damage, ms, bytes)` of each block."""
    options = {
        f"b{place}": [
            Option(label=f"o{n}", damage=damage, costs={"ms": ms, "bytes": size})
            for n, (damage, ms, size) in enumerate(block)
        ]
        for place, block in enumerate(table)
    }
    return Menu(options=options, rest=rest or {})


def all_points(table, *, size=math.inf):
    sums = (map(sum, zip(*chosen, strict=True)) for chosen in product(*table))
    return {(ms, damage) for damage, ms, weight in sums if weight <= size}


def best_points(points):
    return {
        (ms, damage)
        for ms, damage in points
        if not any(m <= ms and d <= damage and (m, d) != (ms, damage) for m, d in points)
    }


TABLE = [
    [(0, 8, 9), (1, 5, 4), (4, 2, 3), (9, 1, 1)],
    [(0, 9, 9), (2, 5, 9), (3, 4, 2), (8, 0, 1)],
    [(0, 7, 7), (3, 3, 5), (6, 3, 2)],
]


def test_a_fine_sweep_finds_the_whole_front():
    found = pareto(menu_of(TABLE), points=60)
    assert {(c.costs["ms"], c.damage) for c in found} == best_points(all_points(TABLE))


def test_the_front_keeps_other_limits_and_its_own():
    found = pareto(menu_of(TABLE), points=60, budget={"bytes": 12, "ms": 15})
    wanted = best_points({p for p in all_points(TABLE, size=12) if p[0] <= 15})
    assert {(c.costs["ms"], c.damage) for c in found} == wanted
    assert all(choice.costs["bytes"] <= 12 for choice in found)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    )
)
def test_every_point_of_a_coarse_sweep_is_on_the_front_and_so_are_the_ends(table):
    found = [(c.costs["ms"], c.damage) for c in pareto(menu_of(table), points=4)]
    points = all_points(table)
    damages = [damage for _, damage in found]
    assert found == sorted(found)
    assert damages == sorted(set(damages), reverse=True)
    assert damages[-1] == min(damage for _, damage in points)
    assert found[0][0] == min(ms for ms, _ in points)
    for ms, damage in found:
        assert damage == min(d for m, d in points if m <= ms)


def test_a_front_of_one_point_and_a_front_out_of_reach():
    assert len(pareto(menu_of([[(1, 4, 2)]]))) == 1
    with pytest.raises(ModelError, match="`bytes` is out of reach"):
        pareto(menu_of(TABLE), budget={"bytes": 1})
    with pytest.raises(ModelError, match="did you mean `ms`"):
        pareto(menu_of(TABLE), along="mss")
    with pytest.raises(ValueError, match="points >= 2"):
        pareto(menu_of(TABLE), points=1)


def test_of_equal_costs_the_less_damaging_stays():
    def choice(ms, damage):
        return Choice(labels={}, damage=damage, costs={"ms": ms})

    given = [choice(2.0, 3.0), choice(2.0, 1.0), choice(1.0, 1.0), choice(3.0, 0.5)]
    assert [c.damage for c in undominated(given, along="ms")] == [1.0, 0.5]
    assert undominated([], along="ms") == ()


def test_rank_correlation_is_spearmans():
    generator = np.random.default_rng(0)
    for _ in range(20):
        # Small whole numbers, so that there are ties.
        one, other = generator.integers(0, 6, size=(2, 12)).tolist()
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation([1, 2, 3], [0.1, 0.5, 90.0]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_latency_error_is_the_median_share():
    assert latency_error([1.1, 2.0, 3.0], [1.0, 4.0, 3.0]) == pytest.approx(0.1)


def test_values_that_say_nothing_are_refused():
    with pytest.raises(DataError, match="3 or more"):
        rank_correlation([1, 2], [1, 2])
    with pytest.raises(DataError, match="all values are the same"):
        rank_correlation([1, 1, 1], [1, 2, 3])
    with pytest.raises(DataError, match="finite"):
        rank_correlation([1, math.nan, 1], [1, 2, 3])
    with pytest.raises(DataError, match="as many"):
        latency_error([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="above 0"):
        latency_error([1.0], [0.0])
