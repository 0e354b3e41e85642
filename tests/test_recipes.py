"""Every shipped recipe is run reduced, or checked where its data is absent."""

import os
from pathlib import Path

import pytest

from understudy import build
from understudy.errors import RecipeError
from understudy.pipeline import run

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("**/*.yaml"))
NEED_DATA = {
    "blockwise",
    "chain",
    "cifar100",
    "fashion_mnist",
    "few_labels_text",
    "language_model",
    "no_labels",
    "restore_text",
    "stories",
    "text_classifier",
    "transfer",
}
# Real sentences, and an encoder that comes with its weights.
NEED_DATA |= {"cosine", "embedding_mse", "margin_mse", "matryoshka", "score_distribution"}
NEED_DATA |= {"sentence_encoder"}
# Of the recipes that show a method, one of each build; all of them train in test_method_recipes.
WHOLE = {"factor_transfer", "simkd"}
REDUCED = (
    "seeds=1",
    "steps.0.training.epochs=1",
    "evaluate.draws=200",
    "evaluate.latency_seconds=0.02",
)


def settings(name):
    if name in ("cifar100", "transfer"):
        return [*REDUCED, "data.rows=1000", "labels.batch_size=128"]
    if name in NEED_DATA:
        return [*REDUCED, "data.rows=1000", "teacher.training.epochs=1"]
    if name in {path.stem for path in RECIPES if path.parent.name == "methods"}:
        return [*REDUCED[:1], *REDUCED[2:], "data.rows=300", "teacher.training.epochs=1"]
    return [*REDUCED, "teacher.training.epochs=2"]


def shown(path):
    """A recipe as a parameter: slow where it only differs in its terms from others."""
    quick = path.parent.name != "methods" or path.stem in WHOLE
    return pytest.param(path, id=path.stem, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("path", [shown(p) for p in RECIPES if p.stem not in NEED_DATA])
def test_a_recipe_runs(path, tmp_path):
    record = run(path, out=tmp_path / "run", settings=settings(path.stem))
    assert record.summary()["student"]["parameters"] > 0
    assert Path(record.summary()["files"]["onnx"]).is_file()


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem in NEED_DATA], ids=lambda p: p.stem)
def test_a_recipe_whose_data_is_absent_lacks_its_files_and_nothing_else(path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_DATA", "/there/is/no/such/folder")
    with pytest.raises(RecipeError) as error:
        build.checked(path)
    assert all("no such folder" in m.law or "exist" in m.law for m in error.value.mistakes)


@pytest.mark.data
@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem in NEED_DATA], ids=lambda p: p.stem)
def test_a_recipe_on_real_data_is_fine(path, shared_data):
    build.checked(path)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "floor"),
    # Chance is 0.01 and 0.10; labels that are shuffled or off by one stay there.
    [("cifar100", 0.10), ("fashion_mnist", 0.75)],
)
def test_real_data_reaches_a_floor_that_an_untrained_student_misses(
    name, floor, shared_data, tmp_path
):
    path = next(p for p in RECIPES if p.stem == name)
    change = ["data.rows=10000", "steps.0.training.epochs=5", "seeds=1"]
    if name == "fashion_mnist":
        change.append("teacher.training.epochs=5")
    summary = run(path, out=tmp_path / "run", settings=change).summary()
    assert summary["student"]["accuracy"]["value"] > floor
    assert summary["control"]["accuracy"]["value"] > floor
    if name == "cifar100":
        # What the data set's own page says of this checkpoint.
        assert summary["teacher"]["accuracy"]["value"] == pytest.approx(0.717, abs=0.0015)


def test_the_data_folder_in_the_recipes_is_the_variable_of_the_tests():
    named = [p for p in RECIPES if "UNDERSTUDY_DATA" in p.read_text()]
    assert {p.stem for p in named} == NEED_DATA
    assert os.environ.get("UNDERSTUDY_DATA") != ""
