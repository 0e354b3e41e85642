"""Neighbouring runs of about the same weight, against all divisions there are."""

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.blockwise.balancing import balanced


def divisions(count, parts):
    for cuts in combinations(range(1, count), parts - 1):
        edges = [0, *cuts, count]
        yield list(pairwise(edges))


def worth(runs, costs):
    sums = [sum(costs[i:j]) for i, j in runs]
    return max(sums), sum(one * one for one in sums)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=7).flatmap(
        lambda costs: st.tuples(
            st.just(costs),
            st.integers(1, len(costs)),
            st.sets(st.tuples(st.integers(0, 6), st.integers(1, 7)), max_size=8),
        )
    )
)
def test_the_heaviest_run_is_lightest_and_then_the_squares_are_least(case):
    costs, parts, forbidden = case
    allowed = [
        runs
        for runs in divisions(len(costs), parts)
        if not any(run in forbidden and run[1] - run[0] > 1 for run in runs)
    ]
    found = balanced(costs, parts, allowed=lambda i, j: j - i == 1 or (i, j) not in forbidden)
    if not allowed:
        assert found is None
    else:
        assert found in allowed
        assert worth(found, costs) == min(worth(runs, costs) for runs in allowed)
