"""Who trains in which numbers: all arms alike, decided once, and kept."""

import json
from functools import partial

import pytest
import torch
import yaml
from torch import nn

from understudy import build
from understudy import recipe as recipes
from understudy.engine import Picked
from understudy.errors import RecipeError
from understudy.objective import control_objective
from understudy.pipeline import precision, run, training
from understudy.recipe import Training
from understudy.tasks import Classification


class Said:
    """Progress that remembers its lines."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def track(self, name, total, unit):
        raise AssertionError("nothing is trained here")


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


def test_a_teachers_precision_is_kept_for_whoever_goes_on(tmp_path, monkeypatch):
    choosing(monkeypatch, "bfloat16")
    said = Said()
    rows, goal = torch.zeros(4, 2), control_objective([], task=Classification(classes=("a", "b")))
    ask = partial(
        precision.decided,
        Training(precision="auto"),
        lambda: nn.Linear(2, 2),
        goal,
        rows,
        said,
        keep=tmp_path,
    )
    assert ask().precision == "bfloat16"
    choosing(monkeypatch, "float32")
    assert ask().precision == "bfloat16"
    assert len(said.lines) == 1


def test_what_is_as_it_always_was_leaves_no_mark():
    """Runs from before there was a choice are not done again."""
    assert "precision" not in Training().model_dump()
    assert "precision" not in Training(precision="float32").model_dump(mode="json")
    assert Training(precision="bfloat16").model_dump()["precision"] == "bfloat16"
    assert Training.model_validate(Training(precision="auto").model_dump()).precision == "auto"


@pytest.mark.parametrize("said", ["auto", "float32", "bfloat16"])
def test_a_precision_that_is_said_twice_is_refused(small, said):
    data = recipe_of(small, precision=said, trainer={"precision": "bf16-mixed"})
    recipe, place = recipes.loads(yaml.safe_dump(data), name="r.yaml")
    with pytest.raises(RecipeError, match="the precision is said twice"):
        build.check(recipe, place)
