"""The typed sections of a recipe: defaults, bounds, and laws between fields."""

import pytest
from pydantic import BaseModel, ValidationError

from understudy.recipe import (
    Entry,
    LearningRate,
    Recipe,
    Schedule,
    TermEntry,
    Training,
    default_objective,
    parts,
    sections,
)


def models():
    found = [v for module in (parts, sections) for v in vars(module).values()]
    return {v for v in found if isinstance(v, type) and issubclass(v, BaseModel)} - {BaseModel}


@pytest.mark.parametrize("model", sorted(models(), key=lambda m: m.__name__))
def test_a_section_is_frozen_strict_and_described(model):
    assert model.model_config["frozen"]
    assert model.model_config["strict"]
    assert model.model_config["extra"] == ("allow" if issubclass(model, Entry) else "forbid")
    assert model.__doc__


def test_a_recipe_is_not_changed_in_place(read):
    recipe = read()
    with pytest.raises(ValidationError):
        recipe.seeds = 3
    training = recipe.steps[0].training
    with pytest.raises(ValidationError):
        training.epochs = 3


def test_defaults_are_shared_by_no_two_recipes(read):
    first, second = read(), read()
    assert first.steps[0].training.trainer is not second.steps[0].training.trainer


# --- teacher -------------------------------------------------------------------------------------

STUDENT = "student: {model: {kind: mlp}}\n"


@pytest.mark.parametrize("text", [
    "{onnx: t.onnx}",
    "{model: {kind: mlp}, weights: w.pt}",
    "{model: {kind: mlp}, training: {}}",
    "{model: {kind: custom, target: 'a.py:b'}}",
    "{predictor: {kind: custom, target: 'a.b:c'}, answers: probabilities}",
])  # fmt: skip
def test_these_are_teachers(text):
    from understudy.recipe import loads

    assert loads(STUDENT + f"teacher: {text}")[0].teacher


@pytest.mark.parametrize(("text", "law"), [
    ("{}", "exactly one of `model`, `onnx`, `predictor`, `zero_shot` and `ensemble` must be given, "
           "but got none"),
    ("{onnx: a, model: {kind: mlp}}", "but got model and onnx"),
    ("{onnx: a, weights: b}", "`weights` belongs to `model`, but got `onnx` with it"),
    ("{predictor: {kind: custom, target: 'a:b'}, training: {}}", "`training` belongs to `model`"),
    ("{model: {kind: mlp}}", "needs `weights` (a file to load) or `training` (train it here), one "
                             "of the two, but got neither"),
    ("{model: {kind: mlp}, weights: a, training: {}}", "but got weights and training"),
])  # fmt: skip
def test_these_are_none(mistakes, text, law):
    (found,) = mistakes(f"teacher: {text}", base=STUDENT)
    assert found.startswith("line 2: teacher: ")
    assert law in found


# --- steps ---------------------------------------------------------------------------------------


def test_without_steps_there_is_one_distillation_with_a_control(read):
    recipe = read()
    assert len(recipe.steps) == 1
    assert recipe.has_control
    assert len(recipe.phases) == 1
    assert recipe.phases[0].training == Training()
    assert recipe.phases[0].objective == default_objective("classification")


def test_hintons_combination_is_the_default_and_regression_has_its_own(read):
    hard, soft = default_objective("classification")
    assert (hard.kind, hard.weight) == ("hard_label", 0.1)
    assert (soft.kind, soft.weight) == ("soft_target", 0.9)
    assert soft.parameters == {"temperature": 4.0}
    recipe = read("task: {kind: regression}")
    assert [term.kind for term in recipe.phases[0].objective] == ["hard_value", "soft_value"]


def test_phases_are_flattened_and_inherit_their_steps_training(read):
    recipe = read("""
steps:
- training: {epochs: 3}
  phases:
  - objective: [{kind: a}]
  - {objective: [{kind: b}], training: {epochs: 7}}
- {objective: [{kind: c}], control: false}
""")
    found = [(p.objective[0].kind, p.training.epochs) for p in recipe.phases]
    assert found == [("a", 3), ("b", 7), ("c", 30)]
    assert not recipe.has_control


def test_an_objective_and_phases_exclude_each_other(mistakes):
    (found,) = mistakes("steps: [{objective: [{kind: a}], phases: [{objective: [{kind: b}]}]}]")
    assert "`objective` and `phases` exclude each other" in found


# --- entries and schedules -----------------------------------------------------------------------


def test_an_entry_keeps_its_parameters_as_they_are_written(read):
    model = read("", "student.model={kind: mlp, hidden: [3], deep: {a: 1}}").student.model
    assert model.kind == "mlp"
    assert model.parameters == {"hidden": [3], "deep": {"a": 1}}
    assert Entry(kind="mlp").parameters == {}


@pytest.mark.parametrize(
    "target", ["a.b:c", "a:B_1", "file.py:make", "../x y/file.py:make", "/a/b.py:c"]
)
def test_these_are_targets(target):
    entry = Entry.model_validate({"kind": "custom", "target": target, "arguments": {"a": 1}})
    assert entry.parameters["target"] == target


@pytest.mark.parametrize(
    "target", [None, 3, "", "a.b", "a.b:", ":c", "a:b:c", "a.py", "a-b:c", "a:1b"]
)
def test_these_are_none_either(target):
    with pytest.raises(
        ValidationError, match=r"`kind: custom` needs `target: package.module:name`"
    ):
        Entry.model_validate({"kind": "custom", "target": target})


def test_parameters_of_a_custom_entry_belong_into_its_arguments():
    with pytest.raises(ValidationError, match="put the parameters into `arguments`"):
        Entry.model_validate({"kind": "custom", "target": "a:b", "depth": 3})
    with pytest.raises(ValidationError, match="`arguments` must be a mapping, but got 3"):
        Entry.model_validate({"kind": "custom", "target": "a:b", "arguments": 3})


def test_a_weight_is_a_number_or_a_schedule(read):
    text = "steps: [{objective: [{kind: a, weight: 2}, {kind: b, weight: {start: 1, end: 0}}]}]"
    number, schedule = read(text).steps[0].objective
    assert number.weight == 2
    assert schedule.weight == Schedule(start=1, end=0)
    assert schedule.weight.kind == "linear"
    assert TermEntry(kind="a").weight == 1.0
    assert "weight" not in schedule.parameters


def test_a_custom_term_has_a_weight_beside_its_target():
    entry = TermEntry.model_validate({"kind": "custom", "target": "a:b", "weight": 0.5})
    assert entry.weight == 0.5


@pytest.mark.parametrize(("text", "law"), [
    ("{start: 0}", "`end` is required and missing here"),
    ("{start: -1, end: 0}", "greater than or equal to 0"),
    ("{start: 0, end: 1, epochs: 0}", "greater than 0"),
    ("{start: 0, end: 1, kind: square}", "'linear' or 'cosine'"),
    ("'0.5'", "must be a valid number, but got '0.5': remove the quotes"),
    ("-1", "greater than or equal to 0"),
])  # fmt: skip
def test_a_wrong_weight_is_a_mistake_at_its_place(mistakes, text, law):
    (found,) = mistakes(f"steps: [{{objective: [{{kind: a, weight: {text}}}]}}]")
    assert "steps[0].objective[0].weight" in found
    assert law in found


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [
    ("3", (0, 1, 2)), ("[7]", (7,)), ("[5, 1]", (5, 1)),
])  # fmt: skip
def test_seeds_are_counted_or_listed(read, text, expected):
    assert read(f"seeds: {text}").seed_list == expected


@pytest.mark.parametrize("text", ["0", "-1", "[]", "[1, 1]", "[-1]", "true", "1.5", "x", "null"])
def test_these_are_no_seeds(mistakes, text):
    assert mistakes(f"seeds: {text}")[0].startswith("line 3: seeds")


@pytest.mark.parametrize("text", [
    "data: {test: 0}", "data: {test: 1.0}", "data: {test: -3}", "data: {test: .nan}",
    "data: {validation: 0}", "data: {labelled: -1}", "data: {labelled: 1.5}", "data: {rows: 0}",
    "data: {preprocess: {std: [0]}}", "data: {seed: -1}", "budget: {accuracy_kept: 1.1}",
    "budget: {bytes: 1.5}", "evaluate: {draws: 10}", "evaluate: {margin: -0.1}",
    "steps: [{training: {gradient_clip: 0}}]", "steps: [{training: {batch_size: 1.0}}]",
    "steps: [{training: {optimizer: {momentum: 1}}}]",
    "steps: [{training: {optimizer: {learning_rate: 0}}}]",
    "steps: [{training: {schedule: {warm_up: 1}}}]",
    "steps: [{training: {checkpoint_seconds: -1}}]",
    "steps: [{training: {early_stopping: {patience: 0}}}]", "steps: [{training: {choose: best}}]",
])  # fmt: skip
def test_numbers_out_of_bounds_are_mistakes(mistakes, text):
    assert len(mistakes(text)) == 1


@pytest.mark.parametrize("text", [
    "data: {test: given}", "data: {test: 100}", "data: {test: 0.99}", "data: {labelled: 1.0}",
    "data: {labelled: 1}", "budget: {accuracy_kept: 1}", "evaluate: {margin: 0}",
    "steps: [{training: {checkpoint_seconds: 0}}]", "steps: [{training: {gradient_clip: 1}}]",
])  # fmt: skip
def test_bounds_themselves_are_allowed_where_they_mean_something(read, text):
    assert read(text)


@pytest.mark.parametrize("name", ["run", "My run-2.1", "_x", "größe"])
def test_a_name_is_a_folders_name(read, name):
    assert read(f"name: {name}").name == name


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "''", "-x", "a:b", "<b>"])
def test_a_name_leads_nowhere_else(mistakes, name):
    assert mistakes(f"name: {name}")[0].startswith("line 3: name: ")


def test_milestones_belong_to_steps_and_to_nothing_else():
    assert LearningRate(kind="step", milestones=[3, 5]).milestones == (3, 5)
    for wrong in ({"kind": "step"}, {"kind": "cosine", "milestones": [3]}):
        with pytest.raises(ValidationError, match=r"`milestones` .* belong to `kind: step`"):
            LearningRate.model_validate(wrong)


def test_only_the_recipe_itself_demands_something():
    required = [n for n, f in Recipe.model_fields.items() if f.is_required()]
    assert required == ["teacher", "student"]
