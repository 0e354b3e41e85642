import json
import math

import pytest

from understudy.blockwise.adjust import Outlook, Plan, next_round, shares, still_falls
from understudy.blockwise.words import Damage
from understudy.errors import ModelError

CHOSEN = {"a": "narrow", "b": "skip", "c": "keep"}
FALLING, STILL = (1.0, 0.5), (0.5, 0.499)


def damage(block, candidate, kl):
    return Damage(block=block, candidate=candidate, kl=kl, metric_drop=0.0)


DAMAGES = [
    damage("a", "narrow", 3.0),
    damage("a", "keep", 0.0),
    damage("b", "skip", 1.0),
    damage("c", "keep", 0.0),
    damage("c", "skip", 50.0),
]


def planned(outlook, **others):
    settings = {"measured": 0.6, "target": 0.7, "rounds_left": 2, **others}
    return next_round(CHOSEN, DAMAGES, outlook, **settings)


def test_the_loop_stops_where_the_target_is_met_or_the_rounds_are_spent():
    outlook = Outlook(losses={("a", "narrow"): FALLING})
    assert "target is met" in planned(outlook, measured=0.7).stop
    assert "rounds are spent" in planned(outlook, rounds_left=0).stop
    assert planned(outlook).stop is None
    # A perplexity is better where it is lower.
    assert planned(outlook, measured=0.7, target=0.6, higher_is_better=False).stop is None
    assert "target is met" in planned(outlook, higher_is_better=False).stop


def test_a_student_whose_score_is_undefined_has_not_met_its_target():
    assert planned(Outlook(losses={("a", "narrow"): FALLING}), measured=math.nan).stop is None


def test_most_damage_is_trained_on_while_its_loss_falls():
    losses = {("a", "narrow"): FALLING, ("b", "skip"): FALLING}
    outlook = Outlook(losses=losses, divisible=frozenset({"a", "b"}), untried={"a": ["wide"]})
    plan = planned(outlook)
    assert plan.more_training == (("a", "narrow"),)
    assert (plan.split, plan.add_candidates) == ((), {})
    assert "75% of the damage" in plan.because[0]


def test_then_it_is_cut_finer_and_then_it_gets_another_candidate():
    losses = {("a", "narrow"): STILL}
    untried = {"a": ["narrow", "wide", "low"]}
    plan = planned(Outlook(losses=losses, divisible=frozenset({"a"}), untried=untried))
    assert (plan.more_training, plan.split, plan.add_candidates) == ((), ("a",), {})
    plan = planned(Outlook(losses=losses, untried=untried))
    assert (plan.more_training, plan.split, plan.add_candidates) == ((), (), {"a": ("wide",)})


def test_where_nothing_helps_the_worst_block_the_next_is_worked_on():
    plan = planned(Outlook(losses={("a", "narrow"): STILL, ("b", "skip"): FALLING}))
    assert plan.more_training == (("b", "skip"),)
    plan = planned(Outlook(divisible=frozenset({"c"}), untried={"c": ["skip"]}))
    # Block c does no damage, so that nothing is gained there.
    assert "nothing is left to try" in plan.stop


def test_a_larger_share_works_on_more_blocks():
    losses = {("a", "narrow"): FALLING, ("b", "skip"): FALLING}
    assert len(planned(Outlook(losses=losses), share=0.75).more_training) == 1
    assert len(planned(Outlook(losses=losses), share=0.76).more_training) == 2
    with pytest.raises(ValueError, match="0 < share <= 1"):
        planned(Outlook(), share=0.0)


def test_where_no_block_does_damage_there_is_nothing_to_do():
    same = [damage("a", "keep", 0.0), damage("b", "keep", -1e-9)]
    plan = next_round(
        {"a": "keep", "b": "keep"}, same, Outlook(), measured=0, target=1, rounds_left=3
    )
    assert "no chosen candidate does damage" in plan.stop


def test_shares_sum_to_one_and_begin_with_the_largest():
    assert shares(CHOSEN, DAMAGES) == {"a": 0.75, "b": 0.25}
    with pytest.raises(ModelError, match="`low` of block `a`"):
        shares({"a": "low"}, DAMAGES)
    with pytest.raises(ModelError, match="no finite damage"):
        shares({"a": "low"}, [damage("a", "low", math.inf)])


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ((), False),
        ((0.5,), True),
        ((0.5, 0.45), True),
        ((0.5, 0.495), False),
        # It came down from a bad training, but is no better than before that.
        ((0.4, 0.9, 0.4), False),
        ((0.5, math.nan), False),
        ((math.nan, 0.5), True),
        ((math.inf, 0.5, 0.3), True),
    ],
)
def test_a_loss_falls_where_the_last_training_beat_all_before(losses, falls):
    assert still_falls(losses) is falls


def test_a_plan_is_plain_data_and_lines():
    outlook = Outlook(losses={("b", "skip"): FALLING}, untried={"a": ["wide"]})
    plan = planned(outlook, share=1.0)
    assert plan.more_training == (("b", "skip"),)
    assert plan.add_candidates == {"a": ("wide",)}
    assert Plan.from_data(json.loads(json.dumps(plan.to_data()))) == plan
    assert len(plan.lines()) == 2
    stop = planned(outlook, rounds_left=0)
    assert Plan.from_data(json.loads(json.dumps(stop.to_data()))) == stop
    assert stop.lines() == [f"stop: {stop.stop}"]
