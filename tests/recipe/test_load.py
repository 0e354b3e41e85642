"""A recipe file to typed data: every mistake at once, with its place and what to do."""

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import Mistake, RecipeError
from understudy.recipe import load, loads, starter, to_data, validate

BASE = "teacher: {onnx: t.onnx}\nstudent: {model: {kind: mlp}}\n"


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_read_and_its_folder_is_remembered(tmp_path):
    (tmp_path / "my.yaml").write_text(BASE)
    recipe, source = load(tmp_path / "my.yaml", ["seeds=2"])
    assert recipe.teacher.onnx == "t.onnx"
    assert recipe.seed_list == (0, 1)
    assert source.name == str(tmp_path / "my.yaml")
    assert source.resolve("data/x.npz") == tmp_path / "data" / "x.npz"
    assert source.resolve("../x") == tmp_path.parent / "x"
    assert source.resolve("/x") == Path("/x")
    assert source.resolve("~/x") == Path.home() / "x"


def test_a_file_that_cannot_be_read_says_why_and_how_to_begin(tmp_path):
    with pytest.raises(RecipeError, match=r"No such file.*`understudy init`"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: gr\xfcn\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_the_starter_is_a_recipe():
    recipe, _ = loads(starter("recipe.yaml"))
    assert recipe.student.model.kind == "mlp"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")))
def test_shipped_recipes_are_recipes(path):
    recipe, _ = load(path)
    assert recipe.seed_list


# --- mistakes ------------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_in_the_files_order(mistakes):
    text = "seeds: many\nlabels: {use: never}\nsteps:\n- training:\n    epochs: 0\n    lr: 0.1\n"
    found = mistakes(text)
    assert [m.partition(":")[0] for m in found] == ["line 3", "line 4", "line 7", "line 8"]


def test_mistakes_of_yaml_and_of_settings_and_of_form_come_together(mistakes):
    found = mistakes("name: a\nname: b\nseeds: x\n", "nonsense", "labels.batch_size=0")
    assert len(found) == 4
    assert any("stands again here" in m for m in found)
    assert any("`section.field=value`, but got 'nonsense'" in m for m in found)


@pytest.mark.parametrize(("text", "expected"), [
    ("seeds: 2.0", "seeds: the value must be a valid integer, or the value must be a list, "
                   "but got 2.0"),
    ("seeds: [1, x]", "seeds[1]: the value must be a valid integer, but got 'x'"),
    ("seeds: {a: 1}", "seeds: the value must be a valid integer, or the value must be a list, "
                      "but got {'a': 1}"),
    ("data: {test: {a: 1}}", "data.test: the value must be a valid number, or the value must be a "
                             "valid integer, or the value must be 'given', but got {'a': 1}"),
    ("budget: {latency_ms: 3}", "budget.latency_ms: the value must be a mapping, but got 3"),
    ("steps: {}", "steps: the value must be a list, but got {}"),
    ("steps: []", "steps: the list must have at least 1 entry, but got []"),
    ("steps: [{objective: []}]", "steps[0].objective: the list must have at least 1 entry, "
                                 "but got []"),
    ("steps: [{objective: [{weight: 1}]}]", "steps[0].objective[0].kind: `kind` is required and "
                                            "missing here"),
    ("task: {kind: klass}", "task.kind: the value must be 'classification', 'regression', "
                            "'embedding', 'token_classification' or 'language_model', but got "
                            "'klass'"),
    ("export: {int8: 1}", "export.int8: the value must be a valid boolean, but got 1"),
    ("export: {int8: yes}", "export.int8: the value must be a valid boolean, but got 'yes'"),
    ("labels: {shard_rows: 0}", "labels.shard_rows: the value must be greater than or equal to 1, "
                                "but got 0"),
    ("evaluate: {margin: .inf}", "evaluate.margin: the value must be a finite number, but got inf"),
])  # fmt: skip
def test_a_mistake_says_place_law_and_value(mistakes, text, expected):
    assert mistakes(text) == [f"line 3: {expected}"]


def test_quotes_around_a_number_are_pointed_at(mistakes):
    text = "steps: [{training: {optimizer: {learning_rate: '1e-3'}}}]"
    assert mistakes(text)[0].endswith("must be a valid number, but got '1e-3': remove the quotes")


def test_a_long_value_is_cut_short(mistakes):
    assert len(mistakes(f"seeds: {'x' * 500}")[0]) < 250


@pytest.mark.parametrize(("text", "place", "hint"), [
    ("seed: 3", "seed", "did you mean `seeds`?"),
    ("dataset: {}", "dataset", "did you mean `data`?"),
    ("steps: [{losses: []}]", "steps[0].losses", "did you mean `objective`?"),
    ("steps: [{training: {lr: 1}}]", "steps[0].training.lr",
     "did you mean `optimizer.learning_rate`?"),
    ("steps: [{training: {bs: 1}}]", "steps[0].training.bs", "did you mean `batch_size`?"),
    ("steps: [{training: {optimizer: {lr: 1}}}]", "steps[0].training.optimizer.lr",
     "did you mean `learning_rate`?"),
    ("steps: [{training: {epoch: 1}}]", "steps[0].training.epoch", "did you mean `epochs`?"),
    ("steps: [{phases: [{objective: [{kind: a}], training: {warmup: 1}}]}]",
     "steps[0].phases[0].training.warmup", "did you mean `schedule.warm_up`?"),
    ("steps: [{objective: [{kind: a, weight: {start: 0, end: 1, epocs: 2}}]}]",
     "steps[0].objective[0].weight.epocs", "did you mean `epochs`?"),
    ("data: {preprocess: {sdt: [1]}}", "data.preprocess.sdt", "did you mean `std`?"),
    ("budget: {latency_ms: {value: 1, threds: 2}}", "budget.latency_ms.threds",
     "did you mean `threads`?"),
])  # fmt: skip
def test_an_unknown_key_gets_a_suggestion_at_any_depth(mistakes, text, place, hint):
    (found,) = mistakes(text)
    assert found.startswith(f"line 3: {place}: unknown key `{place.rpartition('.')[2]}`: {hint}")
    assert "known: " in found


def test_keys_of_two_forms_of_one_section_are_not_each_others_suggestion(mistakes):
    layers = "{student: a, teacher: b, auto: end}"
    found = mistakes(f"steps: [{{objective: [{{kind: a, layers: {layers}}}]}}]")
    assert found
    for told in found:
        assert "it belongs to another form of this section" in told
        assert "did you mean" not in told


@pytest.mark.parametrize(("text", "given"), [
    ("- 1\n- 2\n", "[1, 2]"), ("hello", "'hello'"), ("3", "3"), ("~", "None"),
])  # fmt: skip
def test_a_file_that_is_no_mapping_is_one_mistake(mistakes, text, given):
    expected = f"line 1: recipe: a recipe must be a mapping of sections, but got {given}"
    assert mistakes(text, base="") == [expected]
    assert mistakes(text, "seeds=3", base="") == [expected]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_lacks_teacher_and_student(mistakes, text):
    found = mistakes(text, base="")
    assert found == [f"{n}: `{n}` is required and missing here" for n in ("teacher", "student")]


def test_broken_yaml_is_the_only_mistake_told(mistakes):
    (found,) = mistakes("steps:\n\t- a\nseeds: x\n")
    assert found.startswith("line 4: recipe: this must be YAML")


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "find", "expected"), [
    ("seeds=2", lambda r: r.seeds, 2),
    ("seeds=[4, 5]", lambda r: r.seeds, (4, 5)),
    ("data.source.kind=a=b", lambda r: r.data.source.kind, "a=b"),
    ("data.source.kind=#1", lambda r: r.data.source.kind, "#1"),
    ("name=", lambda r: r.name, None),
    ("data.test=1e-1", lambda r: r.data.test, 0.1),
    ("data.preprocess.mean=[1.5, 2.5]", lambda r: r.data.preprocess.mean, (1.5, 2.5)),
    ("steps.0.training.epochs=7", lambda r: r.steps[0].training.epochs, 7),
    ("steps[0].training.epochs=7", lambda r: r.steps[0].training.epochs, 7),
    ("steps.0.objective.0.kind=a", lambda r: r.steps[0].objective[0].kind, "a"),
    ("steps.0.training.optimizer={kind: sgd}", lambda r: r.steps[0].training.optimizer.kind, "sgd"),
    ("student.model.hidden=[3]", lambda r: r.student.model.parameters, {"hidden": [3]}),
    ("budget.latency_ms.value=2", lambda r: r.budget.latency_ms.value, 2),
])  # fmt: skip
def test_a_setting_changes_one_value_and_makes_what_lies_above_it(read, setting, find, expected):
    assert find(read("", setting)) == expected


def test_settings_are_applied_in_order_and_lists_grow_at_their_end(read):
    recipe = read("", "steps.0.training.epochs=3", "steps.1.training.epochs=4",
                  "steps.0.training.epochs=5")  # fmt: skip
    assert [step.training.epochs for step in recipe.steps] == [5, 4]


def test_a_setting_replaces_what_the_file_says_and_nothing_beside_it(read):
    text = "steps:\n- training: {epochs: 3, batch_size: 5}\n"
    training = read(text, "steps.0.training.epochs=4").steps[0].training
    assert (training.epochs, training.batch_size) == (4, 5)


@pytest.mark.parametrize("setting", ["seeds", "=3", "a..b=3", ".a=3", "a.=3", ""])
def test_a_setting_of_another_form_is_refused(mistakes, setting):
    expected = f"--set: a setting is `section.field=value`, but got {setting!r}"
    assert mistakes("", setting) == [expected]


@pytest.mark.parametrize(("setting", "part"), [
    ("steps.1.training.epochs=5", "1"), ("steps.3=5", "3"), ("teacher.onnx.a=1", "'a'"),
    ("teacher.onnx.0=1", "0"), ("teacher.onnx.a.b=1", "'a'"),
])  # fmt: skip
def test_a_setting_of_a_place_that_cannot_be_is_refused_and_changes_nothing(
    mistakes, setting, part
):
    (found,) = mistakes("", setting)
    assert f"`--set {setting}` names a place that the recipe does not have ({part})" in found


def test_a_setting_that_makes_a_mistake_names_its_place(mistakes):
    assert mistakes("", "steps.0.training.epochs=many") == [
        "steps[0].training.epochs: the value must be a valid integer, but got 'many'"
    ]
    (found,) = mistakes("", "steps.0.training.epoch=1")
    assert "did you mean `epochs`?" in found
    assert mistakes("", "²=3")[0].startswith("²: unknown key `²`")


# --- the environment -----------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_TEST_PLACE", "/data")
    monkeypatch.setenv("UNDERSTUDY_TEST_NUMBER", "3")
    monkeypatch.setenv("UNDERSTUDY_TEST_EMPTY", "")
    monkeypatch.delenv("UNDERSTUDY_TEST_MISSING", raising=False)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("text", "expected"), [
    ("${UNDERSTUDY_TEST_PLACE}/x", "/data/x"),
    ("${UNDERSTUDY_TEST_PLACE}", "/data"),
    ("${UNDERSTUDY_TEST_PLACE:-/tmp}/x", "/data/x"),
    ("${UNDERSTUDY_TEST_MISSING:-/tmp}/x", "/tmp/x"),
    ("${UNDERSTUDY_TEST_MISSING:-}x", "x"),
    ("${UNDERSTUDY_TEST_EMPTY:-/tmp}", "/tmp"),
    ("${UNDERSTUDY_TEST_PLACE}-${UNDERSTUDY_TEST_NUMBER}", "/data-3"),
    ("$UNDERSTUDY_TEST_PLACE", "$UNDERSTUDY_TEST_PLACE"),
    ("${1}", "${1}"),
    ('"${UNDERSTUDY_TEST_NUMBER}"', "3"),
])  # fmt: skip
def test_variables_are_replaced_in_texts(read, text, expected):
    quoted = text.strip('"')
    source = read(f"data:\n  source:\n    kind: {text}\n    deep: [1, '{quoted}']").data.source
    assert source.kind == expected
    assert source.parameters["deep"] == [1, expected]
    assert type(source.kind) is str


@pytest.mark.usefixtures("environment")
def test_a_variable_alone_and_without_quotes_may_be_a_number(read):
    assert read("seeds: ${UNDERSTUDY_TEST_NUMBER}").seeds == 3
    assert read("export:\n  int8: ${UNDERSTUDY_TEST_MISSING:-false}").export.int8 is False
    assert read("data:\n  labelled: ${UNDERSTUDY_TEST_MISSING:-0.5}").data.labelled == 0.5
    assert read("data:\n  rows: ${UNDERSTUDY_TEST_MISSING:-null}").data.rows is None


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", ["UNDERSTUDY_TEST_MISSING", "UNDERSTUDY_TEST_EMPTY"])
def test_a_variable_that_is_not_there_is_a_mistake_with_its_line(mistakes, name):
    (found,) = mistakes(f"data:\n  source:\n    kind: csv\n    path: ${{{name}}}/x\n")
    assert found.startswith(
        f"line 6: data.source.path: `${{{name}}}` needs the environment variable"
    )
    assert f"write `${{{name}:-default}}`" in found


@pytest.mark.usefixtures("environment")
def test_settings_may_hold_variables(read):
    assert read("", "teacher.onnx=${UNDERSTUDY_TEST_PLACE}/y").teacher.onnx == "/data/y"


def test_a_value_from_the_environment_is_not_searched_for_variables(read, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_TEST_PLACE", "${UNDERSTUDY_TEST_PLACE}")
    recipe = read("data:\n  source:\n    kind: a${UNDERSTUDY_TEST_PLACE}")
    assert recipe.data.source.kind == "a${UNDERSTUDY_TEST_PLACE}"


# --- sources, and anything at all ----------------------------------------------------------------


def test_a_place_that_is_not_in_the_file_has_the_line_above_it():
    _, source = loads(BASE + "steps:\n- training:\n    epochs: 3\n")
    assert source.line(("steps", 0, "training", "epochs")) == 5
    assert source.line(("steps", 0, "training", "optimizer", "kind")) == 4
    assert source.line(("budget", "bytes")) is None
    assert source.place(Mistake(path=("steps", 7), law="x")).line == 3
    assert source.place(Mistake(path=("steps",), law="x", line=1)).line == 1


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_recipe_with_anything_wrong_is_a_list_of_mistakes_and_never_a_traceback(data):
    broken = to_data(loads(starter("x.yaml"))[0])
    here = broken
    while isinstance(here, dict | list) and here:
        keys = sorted(here) if isinstance(here, dict) else range(len(here))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or data.draw(st.booleans()):
            here[key] = data.draw(st.sampled_from(
                [None, True, -1, 0, 10**30, 0.5, float("nan"), float("inf"), "", "x", [], [[]],
                 {}, {"kind": 3}, {"kind": "custom"}, {"a": {"b": 1}}, [None], ["x", {}]]
            ))  # fmt: skip
            break
        here = here[key]
    recipe, found = validate(broken)
    assert (recipe is None) == bool(found)
    assert all(mistake.law and str(mistake) for mistake in found)
    setting = data.draw(st.sampled_from(["seeds.0=1", "name.0=1", "steps.0=x", "teacher=3", "a=b"]))
    with suppress(RecipeError):
        loads(yaml.safe_dump(broken), [setting])
