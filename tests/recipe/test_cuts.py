"""Cuts in a recipe: forms and defaults, exactly one target each, mistakes with suggestions."""

import pytest
from pydantic import BaseModel

from understudy.errors import RecipeError
from understudy.recipe import cuts, loads

TEACHER = "teacher: {model: {kind: mlp}, training: {}}\n"
KINDS = ("depth", "width", "low_rank", "sharing", "lora", "scratch")


def read(cut):
    return loads(f"{TEACHER}student:\n  from_teacher: {cut}\n")[0].student.from_teacher


def mistakes(cut):
    with pytest.raises(RecipeError) as error:
        read(cut)
    return [str(mistake) for mistake in error.value.mistakes]


def models():
    found = vars(cuts).values()
    return [v for v in found if isinstance(v, type) and issubclass(v, BaseModel)]


@pytest.mark.parametrize("model", models(), ids=lambda m: m.__name__)
def test_a_cut_is_frozen_strict_and_described(model):
    assert model.model_config["frozen"]
    assert model.model_config["strict"]
    assert model.model_config["extra"] == "forbid"
    assert model is cuts.Part or model.__doc__


@pytest.mark.parametrize(("text", "kind"), [
    ("{keep: 0.25, by: importance}", "depth"),
    ("{keep: 3, by: evenly}", "depth"),
    ("{keep: [0, 3, 5]}", "depth"),
    ("{keep: 0.5, importance: {rows: 64, reduce: pca, components: 8}}", "depth"),
    ("{kind: width, keep: 0.75, by: taylor}", "width"),
    ("{kind: width, parameters: 0.5, even: false, protect: [head], round_to: 8}", "width"),
    ("{kind: width, parameters: 12000}", "width"),
    ("{kind: low_rank, energy: 0.95}", "low_rank"),
    ("{kind: low_rank, parameters: 0.5, aware: false, layers: ['blocks.*']}", "low_rank"),
    ("{kind: sharing, groups: 3, by: mean}", "sharing"),
    ("{kind: scratch, parameters: 0.25}", "scratch"),
    ("{kind: scratch, latency_ms: 2.5, vary: [base]}", "scratch"),
    ("{kind: scratch, bytes: 100000}", "scratch"),
])  # fmt: skip
def test_these_are_cuts(text, kind):
    (cut,) = read(text)
    assert cut.kind == kind


def test_several_cuts_stay_in_order_and_one_needs_no_list():
    several = read("[{keep: 0.5}, {kind: width, keep: 0.5}, {kind: low_rank, energy: 0.9}]")
    assert [cut.kind for cut in several] == ["depth", "width", "low_rank"]
    assert read("{keep: 0.5}") == read("[{keep: 0.5}]")


def test_the_issues_own_example_means_importance_and_scaling():
    (cut,) = read("{keep: 0.25}")
    assert (cut.by, cut.scale, cut.importance.rows) == ("importance", True, 1000)


@pytest.mark.parametrize(("text", "parts"), [
    ("{kind: width}", ["`keep` and `parameters`", "got none"]),
    ("{kind: width, keep: 0.5, parameters: 0.5}", ["got keep and parameters"]),
    ("{kind: low_rank}", ["`energy` and `parameters`", "got none"]),
    ("{kind: scratch}", ["`parameters`, `bytes` and `latency_ms`", "got none"]),
    ("{kind: scratch, bytes: 5, latency_ms: 1.0}", ["got bytes and latency_ms"]),
])  # fmt: skip
def test_exactly_one_target_is_given(text, parts):
    (told,) = mistakes(text)
    assert all(part in told for part in ("line 3", "student.from_teacher", *parts)), told


@pytest.mark.parametrize(("text", "parts"), [
    ("{keep: 0.5, importanse: {rows: 5}}", ["unknown key `importanse`", "`importance`"]),
    ("{keep: 0.5, importance: {row: 5}}", ["unknown key `row`", "did you mean `rows`"]),
    ("{kind: width, keep: 0.5, protekt: [a]}", ["did you mean `protect`"]),
    ("{kind: width, keep: 0.5, roundto: 8}", ["did you mean `round_to`"]),
    ("{kind: low_rank, enrgy: 0.9}", ["did you mean `energy`"]),
    ("{kind: sharing, group: 3}", ["did you mean `groups`"]),
    ("{kind: sharing}", ["`groups` is required"]),
    ("{keep: 0}", ["greater than 0", "got 0"]),
    ("{keep: 1.5}", ["less than or equal to 1", "got 1.5"]),
    ("{keep: -2}", ["greater than", "got -2"]),
    ("{keep: []}", ["at least 1 entry"]),
    ("{keep: [0, -1]}", ["greater than or equal to 0", "got -1"]),
    ("{keep: 0.5, by: importence}", ["'importance'", "got 'importence'"]),
    ("{kind: width, keep: 0.5, by: size}", ["'magnitude'", "got 'size'"]),
    ("{kind: wdith, keep: 0.5}", ["wdith", *(f"'{kind}'" for kind in KINDS)]),
    ("{kind: 3, keep: 0.5}", ["'depth'"]),
    ("half", ["must be a list", "got 'half'"]),
])  # fmt: skip
def test_a_mistake_in_a_cut_is_told_with_its_place(text, parts):
    told = "\n".join(mistakes(text))
    assert "line 3" in told
    for part in parts:
        assert part in told, told


def test_an_unknown_key_is_compared_with_this_cuts_own_keys_only():
    """`energy` belongs to another kind: it is no help here."""
    (told,) = mistakes("{kind: width, keep: 0.5, energi: 0.9}")
    assert "unknown key `energi`" in told
    assert "groups" not in told
    assert "energy" not in told


def test_all_mistakes_of_several_cuts_are_told_at_once():
    told = mistakes("\n    - {keep: 2.5}\n    - {kind: width}\n    - {kind: sharing, groops: 3}")
    text = "\n".join(told)
    for part in ("line 4", "got 2.5", "line 5", "got none", "line 6", "groops"):
        assert part in text, text


def test_a_fresh_network_can_only_come_first():
    (told,) = mistakes("[{keep: 0.5}, {kind: scratch, parameters: 0.5}]")
    assert "must be the first of `from_teacher`" in told
    assert len(read("[{kind: scratch, parameters: 0.5}, {kind: width, keep: 0.5}]")) == 2


def test_updates_beside_frozen_weights_can_only_come_last():
    for wrong in ("[{kind: lora}, {keep: 0.5}]", "[{kind: scratch, parameters: 9}, {kind: lora}]"):
        (told,) = mistakes(wrong)
        assert "must be the last of `from_teacher`, and not with `scratch`" in told
    depth, lora = read("[{keep: 0.5}, {kind: lora, layers: ['blocks.*']}]")
    assert (depth.kind, lora.rank, lora.alpha, lora.layers) == ("depth", 8, 16.0, ("blocks.*",))


@pytest.mark.parametrize("more", ["", "  model: {kind: mlp}\n"])
def test_a_student_is_a_model_or_is_cut(more):
    text = f"{TEACHER}student:\n  dropout: 0.1\n{more}"
    if not more:
        with pytest.raises(RecipeError, match="`model`, `from_teacher` and `blockwise`"):
            loads(text)
        return
    with pytest.raises(RecipeError, match="got model and from_teacher"):
        loads(f"{text}  from_teacher: {{keep: 0.5}}\n")


def test_a_cut_student_has_its_teachers_head_already():
    text = f"{TEACHER}student: {{from_teacher: {{keep: 0.5}}, reused_head: {{}}}}\n"
    with pytest.raises(RecipeError, match="has the teacher's last layer already: remove it"):
        loads(text)
