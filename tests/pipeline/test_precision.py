"""Who trains in which numbers: all arms alike, decided once, and kept."""

import json

import pytest
import yaml

from understudy import build
from understudy import recipe as recipes
from understudy.engine import Picked
from understudy.errors import RecipeError
from understudy.pipeline import precision, run, training


@pytest.fixture
def fits(monkeypatch):
    """The precision of every training, in order."""
    seen, real = [], training.fit

    def fit(**named):
        seen.append(named["training"].precision)
        return real(**named)

    monkeypatch.setattr(training, "fit", fit)
    return seen


def choosing(monkeypatch, name):
    picked = Picked(precision=name, rows_per_second={"float32": 1.0, "bfloat16": 2.0})
    monkeypatch.setattr(precision, "pick", lambda *_: picked)


def recipe_of(small, **changes):
    data = small(seeds=1)
    step = data["steps"][0]
    data["steps"][0] = {**step, "training": {**step.get("training", {}), "epochs": 1, **changes}}
    return data


def test_both_arms_learn_in_what_was_picked_once(small, tmp_path, monkeypatch, fits):
    choosing(monkeypatch, "bfloat16")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe_of(small, precision="auto")))
    run(tmp_path / "r.yaml", out=tmp_path / "run", until="export")
    assert fits == ["bfloat16", "bfloat16"]
    kept = json.loads((tmp_path / "run/precision/stage.json").read_text())["summary"]
    assert kept["precision"] == "bfloat16"
    # Another session would pick otherwise: it is not asked.
    choosing(monkeypatch, "float32")
    run(tmp_path / "r.yaml", out=tmp_path / "run", until="export")
    assert fits == ["bfloat16", "bfloat16"]


def test_without_auto_nothing_is_picked(small, tmp_path, monkeypatch, fits):
    monkeypatch.setattr(precision, "pick", lambda *_: pytest.fail("nobody asked"))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe_of(small, precision="bfloat16")))
    run(tmp_path / "r.yaml", out=tmp_path / "run", until="export")
    assert fits == ["bfloat16", "bfloat16"]
    assert not (tmp_path / "run/precision").exists()


def test_a_precision_that_is_said_twice_is_refused(small):
    data = recipe_of(small, precision="auto", trainer={"precision": "bf16-mixed"})
    recipe, place = recipes.loads(yaml.safe_dump(data), name="r.yaml")
    with pytest.raises(RecipeError, match="the precision is said twice"):
        build.check(recipe, place)
