"""Batches that a student writes itself: refused where nobody writes, scores or compares."""

import pytest
import yaml

from understudy import build
from understudy.build.check_writing import writing_mistakes
from understudy.errors import RecipeError
from understudy.recipe import loads

SOFT = {"kind": "reverse_kl"}
STEP = {"objective": [SOFT], "training": {"on_policy": {"max_tokens": 8}}}


def recipe_of(step, **changes):
    data = {
        "teacher": {"model": {"kind": "mlp"}, "training": {}},
        "student": {"model": {"kind": "mlp"}},
        "labels": {"use": "live"},
        "steps": [step],
    } | changes
    return loads(yaml.safe_dump(data))


def told(step, *, task="language_model", **changes):
    """The mistakes of a recipe, as if its task were this one."""
    recipe, place = recipe_of(step, **changes)
    section = recipe.task.model_copy(update={"kind": task})
    recipe = recipe.model_copy(update={"task": section})
    return [(".".join(map(str, m.path)), m.law) for m in writing_mistakes(recipe, place)]


def test_a_language_model_with_a_live_teacher_may_write():
    assert told(STEP) == []
    full = {
        "share": {"start": 0.0, "end": 0.5}, "max_tokens": 8, "prompt": 4, "temperature": 0.9,
        "top_k": 5, "top_p": 0.9, "buffer": 256, "refresh": 0.5,
    }  # fmt: skip
    assert told({"phases": [STEP | {"training": {"on_policy": full}}]}) == []
    assert told({"objective": [SOFT], "training": {}}, task="classification") == []


@pytest.mark.parametrize(("step", "changes", "where", "law"), [
    (STEP, {"task": "classification"}, "steps.0.training.on_policy", "the task is classification"),
    (STEP, {"labels": {"use": "auto"}}, "steps.0.training.on_policy", "set `labels: {use: live}`"),
    ({"phases": [{"objective": [{"kind": "hard_label"}], "training": STEP["training"]}]}, {},
     "steps.0.phases.0.training.on_policy", "no term of this objective does: add `reverse_kl`"),
    ({"objective": [SOFT], "training": {"on_policy": {"buffer": 8, "refresh": 0.5}}}, {},
     "steps.0.training.on_policy", "`buffer >= batch_size` must hold, but got 8 and 64"),
    ({"objective": [SOFT]},
     {"teacher": {"model": {"kind": "mlp"}, "training": {"on_policy": {}}}},
     "teacher.training.on_policy", "nobody to score what it writes"),
])  # fmt: skip
def test_what_cannot_be_is_refused_where_it_stands(step, changes, where, law):
    found = told(step, **changes)
    assert [path for path, _ in found] == [where]
    assert law in found[0][1], found


def test_the_command_line_hears_of_it_with_everything_else():
    with pytest.raises(RecipeError, match="only a language model writes what it learns from"):
        build.check(*recipe_of(STEP))


@pytest.mark.parametrize(("section", "law"), [
    ({"share": 1.5}, "1.5"),
    ({"share": {"start": 0.0, "end": 2.0}}, "is a probability, but goes from 0.0 to 2.0"),
    ({"refresh": 0.5}, "draws texts from the `buffer`, but there is none"),
    ({"max_tokens": 0}, "max_tokens"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(section, law):
    with pytest.raises(RecipeError, match=law.replace("(", r"\(")):
        recipe_of({"training": {"on_policy": section}})
