import contextlib
import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.blockwise.recombine import (
    Choice,
    Correction,
    Menu,
    Option,
    choose,
    predicted,
    smallest,
    usable,
)
from understudy.errors import ModelError

NAMES = ("ms", "parameters", "bytes", "memory")


def option(label, damage, requires=(), **costs):
    return Option(label=label, damage=damage, costs=costs, requires=tuple(requires))


def menu_of(*blocks, **others):
    return Menu(options={f"b{place}": block for place, block in enumerate(blocks)}, **others)


# Drawn as plain data, since the type checks inside of constructors draw random numbers themselves.
@st.composite
def menus(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    whole = st.integers(0, 30)
    spots = [(f"b{b}", f"o{o}") for b, size in enumerate(sizes) for o in range(size)]
    options = {}
    for b, size in enumerate(sizes):
        others = [spot for spot in spots if spot[0] != f"b{b}"]
        several = []
        for o in range(size):
            needs = draw(st.lists(st.sampled_from(others), max_size=1)) if others and o else []
            damage = draw(st.one_of(st.integers(-5, 30), st.just(math.inf)) if o else whole)
            costs = {name: draw(whole) for name in NAMES}
            several.append((f"o{o}", damage, needs, costs))
        options[f"b{b}"] = several
    pairs = []
    if len(sizes) > 1:
        for _ in range(draw(st.integers(0, 6))):
            one = draw(st.sampled_from(spots))
            other = draw(st.sampled_from([spot for spot in spots if spot[0] != one[0]]))
            value = draw(st.one_of(st.integers(-20, 20), st.just(math.inf)))
            pairs.append((one, other, value))
    rest = {name: draw(whole) for name in draw(st.sets(st.sampled_from(NAMES)))}
    limits = {name: draw(st.integers(0, 120)) for name in draw(st.sets(st.sampled_from(NAMES)))}
    return options, pairs, rest, limits


def built(options, pairs, rest, limits):
    menu = Menu(
        options={
            block: [
                option(label, damage, needs, **costs) for label, damage, needs, costs in several
            ]
            for block, several in options.items()
        },
        pairs=[Correction(one=one, other=other, value=value) for one, other, value in pairs],
        rest=rest,
    )
    return menu, limits


def by_hand(menu, limits):
    """All combinations that are allowed, with damage and costs; written without the program."""
    found = []
    for combination in product(*menu.options.values()):
        labels = dict(zip(menu.options, (o.label for o in combination), strict=True))
        if any(labels[block] != label for o in combination for block, label in o.requires):
            continue
        damage = sum(o.damage for o in combination)
        for pair in menu.pairs:
            if labels[pair.one[0]] == pair.one[1] and labels[pair.other[0]] == pair.other[1]:
                damage += pair.value
        costs = {
            name: menu.rest.get(name, 0) + sum(o.costs[name] for o in combination)
            for name in ("ms", "parameters", "bytes")
        }
        peak = max(menu.rest.get("memory", 0), *(o.costs["memory"] for o in combination))
        costs["memory"] = costs["bytes"] + peak
        if math.isfinite(damage) and all(costs[name] <= top for name, top in limits.items()):
            found.append((damage, costs))
    return found


@settings(max_examples=120, deadline=None)
@given(menus())
def test_it_finds_what_trying_all_combinations_finds(drawn):
    menu, limits = built(*drawn)
    allowed = by_hand(menu, limits)
    if not allowed:
        with pytest.raises(ModelError):
            choose(menu, limits)
        return
    found = choose(menu, limits)
    assert found.damage == min(damage for damage, _ in allowed)
    assert (found.damage, found.costs) in allowed
    assert found.gap == 0


@settings(max_examples=60, deadline=None)
@given(menus(), st.sampled_from(NAMES))
def test_the_smallest_cost_is_that_of_all_combinations(drawn, name):
    menu, limits = built(*drawn)
    allowed = by_hand(menu, limits)
    if allowed:
        assert smallest(menu, name, limits) == min(costs[name] for _, costs in allowed)


def test_without_a_budget_each_block_keeps_its_least_damage():
    menu = menu_of(
        [option("keep", 0.0, ms=3.0), option("skip", 0.5, ms=0.0)],
        [option("skip", 0.2, ms=0.0), option("keep", 0.0, ms=3.0)],
    )
    found = choose(menu)
    assert found.labels == {"b0": "keep", "b1": "keep"}
    assert found.costs == {"ms": 6.0}


def test_large_and_small_numbers_are_told_apart():
    menu = menu_of(
        [option("keep", 1e-7, flops=4 * 10**12), option("less", 2e-7, flops=3 * 10**12)],
        [option("keep", 1e-7, flops=4 * 10**12), option("less", 3e-7, flops=3 * 10**12)],
        rest={"flops": 10**9},
    )
    found = choose(menu, {"flops": 7 * 10**12 + 10**9})
    assert found.labels == {"b0": "less", "b1": "keep"}
    assert smallest(menu, "flops") == 6 * 10**12 + 10**9
    with pytest.raises(ModelError, match="out of reach"):
        choose(menu, {"flops": 6 * 10**12})


def test_memory_is_the_weights_and_the_largest_working_memory():
    wide = [option("keep", 0.0, bytes=10, memory=100), option("narrow", 1.0, bytes=5, memory=40)]
    slim = [option("keep", 0.0, bytes=10, memory=50)]
    menu = menu_of(wide, slim, rest={"bytes": 1, "memory": 45})
    assert choose(menu).costs["memory"] == 21 + 100
    assert choose(menu, {"memory": 120}).costs["memory"] == 16 + 50


def test_a_shared_candidate_comes_only_with_its_neighbour():
    menu = menu_of(
        [option("keep", 0.0, bytes=10), option("narrow", 0.3, bytes=5)],
        [option("keep", 0.0, bytes=10), option("shared", 0.1, [("b0", "narrow")], bytes=0)],
    )
    assert choose(menu, {"bytes": 10}).labels == {"b0": "narrow", "b1": "shared"}
    # Keep and shared would do less damage within this budget.
    assert choose(menu, {"bytes": 15}).labels == {"b0": "narrow", "b1": "keep"}


def test_two_candidates_that_spoil_each_other_are_not_both_chosen():
    both = [option("keep", 0.0, ms=2.0), option("low", 0.1, ms=1.0)]
    spoilt = Correction(one=("b1", "low"), other=("b0", "low"), value=5.0)
    third = [option("keep", 0.0, ms=2.0), option("low", 0.2, ms=1.0)]
    menu = menu_of(both, both, third, pairs=[spoilt])
    assert choose(menu, {"ms": 4.0}).damage == pytest.approx(0.3)
    never = Correction(one=("b0", "low"), other=("b2", "low"), value=math.inf)
    menu = menu_of(both, both, third, pairs=[spoilt, never])
    assert choose(menu, {"ms": 4.0}).labels == {"b0": "keep", "b1": "low", "b2": "low"}


def test_a_candidate_that_failed_is_left_out_and_what_needs_it_too():
    menu = menu_of(
        [option("keep", 1.0), option("bad", math.nan)],
        [option("keep", 1.0), option("shared", 0.0, [("b0", "bad")])],
    )
    assert {b: [o.label for o in s] for b, s in usable(menu).items()} == {
        "b0": ["keep"],
        "b1": ["keep"],
    }
    assert choose(menu).damage == 2.0
    with pytest.raises(ModelError, match="block `b0` has no candidate of finite damage"):
        choose(menu_of([option("bad", math.inf)]))


def test_a_budget_out_of_reach_says_what_is_closest_and_what_binds():
    block = [
        option("fast", 0.1, ms=1.0, parameters=900, flops=5),
        option("small", 0.1, ms=3.0, parameters=100, flops=5),
    ]
    menu = menu_of(block, block)
    with pytest.raises(ModelError) as caught:
        choose(menu, {"ms": 3.0, "parameters": 500, "flops": 100})
    said = str(caught.value)
    assert "`ms` and `parameters` cannot hold together" in said
    assert "ms: limit 3, the smallest there is 2, within the other limits 6" in said
    assert "parameters: limit 500, the smallest there is 200, within the other limits 1,800" in said
    # Half beyond `ms` and double of `parameters`, or double of `ms` and within `parameters`.
    assert "closest: ms 4, parameters 1,000, flops 10, up to 100% beyond a limit" in said or (
        "closest: ms 6, parameters 200, flops 10, up to 100% beyond a limit" in said
    )
    with pytest.raises(ModelError, match="`ms` is out of reach"):
        choose(menu, {"ms": 1.5, "flops": 100})


def test_requirements_that_contradict_are_told_from_a_budget():
    one = [option("a", 0.0, [("b1", "x")], ms=1)]
    other = [option("x", 0.0, [("b2", "p")], ms=1), option("y", 0.0, ms=1)]
    third = [option("p", 0.0, [("b1", "y")], ms=1)]
    with pytest.raises(ModelError, match="whatever the budget"):
        choose(menu_of(one, other, third), {"ms": 100})


@pytest.mark.parametrize(
    ("menu", "budget", "law"),
    [
        (Menu(options={}), {}, "no blocks"),
        (menu_of([option("a", 0.0), option("a", 1.0)]), {}, "must differ"),
        (menu_of([option("a", 0.0, ms=1)]), {"mss": 1}, "did you mean `ms`"),
        (menu_of([option("a", 0.0, memory=1)]), {"memory": 1}, "needs `bytes`"),
        (menu_of([option("a", 0.0, ms=1)]), {"ms": math.nan}, "`ms >= 0` must hold"),
        (menu_of([option("a", 0.0, ms=math.nan)]), {"ms": 1}, "of block `b0` has none"),
        (menu_of([option("a", 0.0, [("b7", "a")])]), {}, "is no option"),
        (
            menu_of(
                [option("a", 0.0)],
                pairs=[Correction(one=("b0", "a"), other=("b0", "a"), value=1)],
            ),
            {},
            "two blocks",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(menu, budget, law):
    with pytest.raises(ModelError, match=law):
        choose(menu, budget)


def test_a_choice_of_ones_own_is_predicted_the_same_way():
    pair = Correction(one=("b0", "low"), other=("b1", "low"), value=0.25)
    both = [option("keep", 0.0, ms=2.0), option("low", 0.5, ms=1.0)]
    menu = menu_of(both, both, pairs=[pair], rest={"ms": 0.5})
    own = predicted(menu, {"b0": "low", "b1": "low"})
    assert (own.damage, own.costs) == (1.25, {"ms": 2.5})
    assert own == choose(menu, {"ms": 2.5})
    with pytest.raises(ModelError, match="did you mean `low`"):
        predicted(menu, {"b0": "low", "b1": "loww"})


def test_a_choice_is_plain_data():
    choice = choose(menu_of([option("a", 1, ms=2)]))
    assert Choice.from_data(json.loads(json.dumps(choice.to_data()))) == choice


def hard(blocks=12, labels=8):
    """A menu whose best choice takes the solver a while."""
    generator = np.random.default_rng(0)
    options = {}
    for block in range(blocks):
        costs = generator.uniform(1, 2, size=(labels, 3))
        damages = (2.1 - costs.mean(axis=1)) * generator.lognormal(0, 0.1, size=labels)
        options[f"b{block}"] = [
            option(f"o{n}", float(d), ms=float(c[0]), flops=float(c[1]), bytes=float(c[2]))
            for n, (d, c) in enumerate(zip(damages, costs, strict=True))
        ]
    return Menu(options=options), {
        "ms": 1.45 * blocks,
        "flops": 1.45 * blocks,
        "bytes": 1.4 * blocks,
    }


def test_an_answer_in_short_time_says_how_far_from_the_best_it_may_be():
    menu, limits = hard()
    best = choose(menu, limits)
    assert best.gap == 0
    with pytest.raises(ModelError, match="no choice of candidates was found in 1e-06 s"):
        choose(menu, limits, seconds=1e-6)
    for seconds in (0.02, 0.05, 0.1):
        # On a slow machine not even one choice may be found in that time.
        with contextlib.suppress(ModelError):
            found = choose(menu, limits, seconds=seconds)
            assert found.damage >= best.damage - 1e-9
            assert found.damage - found.gap <= best.damage + 1e-9
            assert all(found.costs[name] <= limit * (1 + 1e-9) for name, limit in limits.items())
