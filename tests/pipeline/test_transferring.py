"""Another task with few labels: what the stages choose, compute, keep and refuse."""

import shutil
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_weights
from sklearn.datasets import load_digits

from pipeline.conftest import SMALL, merged
from pipeline.lessons import begin, distil, prepare, work_of
from understudy import build
from understudy import recipe as recipes
from understudy.errors import DataError, ModelError, RecipeError
from understudy.folders import read_json
from understudy.models import MLP
from understudy.pipeline import run
from understudy.pipeline.other_task import other_rows
from understudy.pipeline.transferring import transfer
from understudy.students.heads import fit_head

FEW = {
    "source": {"kind": "arrays", "inputs": "other.npz:inputs", "labels": "other.npz:parity"},
    "test": 0.5,
    "labelled": 40,
    "draws": 3,
}
RECIPE = merged(
    SMALL,
    {
        "data": {
            "source": {"kind": "arrays", "inputs": "own.npz:inputs", "labels": "own.npz:digits"},
            "rows": 400,
            "preprocess": {"scale": 16.0, "mean": [0.0], "std": [1.0]},
        },
        "export": {"int8": False},
        "transfer": FEW,
        "seeds": 3,
    },
)


class Stopped(Exception):  # noqa: N818
    """What ends a run in its middle."""


class Watcher:
    """Progress that counts models whose heads are done, and may stop there."""

    def __init__(self, stop=None):
        self.stop, self.done, self.said = stop, [], []

    def say(self, line):
        self.said.append(line)

    def track(self, name, total, unit):
        return self._models() if name == "transfer" else nullcontext(lambda done, note="": None)

    @contextmanager
    def _models(self):
        def tracker(done, note=""):
            self.done.append(note)
            if done == self.stop:
                raise Stopped

        yield tracker


def write_rows(folder):
    """Digits that are taught, and others whose second label is another task."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    bright = images.reshape(len(images), -1).mean(axis=1).astype(np.float32)
    np.savez(folder / "own.npz", inputs=images[:900], digits=digits.target[:900])
    np.savez(
        folder / "other.npz",
        inputs=images[900:],
        parity=digits.target[900:] % 2,
        bright=bright[900:, None],
        tall=images[900:, :, :7],
    )


def moved_on(folder, data=None, progress=None):
    """A run without export and evidence: its work, and what it says of the other task."""
    work = work_of(data or RECIPE, folder, progress)
    prepare(work)
    other_rows(work)
    loaded = begin(work)
    arms, _ = distil(work, loaded)
    return work, transfer(work, arms, loaded)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The folder with a finished other task, and what was found; tests may read, not write."""
    folder = tmp_path_factory.mktemp("moved")
    write_rows(folder)
    return folder, moved_on(folder)[1]


@pytest.fixture
def again(moved, tmp_path):
    """A copy of its folder, rows included, that a test may harm."""
    target = tmp_path / "copy"
    shutil.copytree(moved[0], target)
    return target


def changed(**changes):
    return {**RECIPE, "transfer": {**FEW, **changes}}


def test_a_run_compares_teacher_student_control_and_an_untrained_student(moved):
    found = moved[1]
    assert list(found["models"]) == ["teacher", "student", "control", "untrained"]
    assert found["rows"] == {"pool": 449, "labelled": 40, "draws": 3, "test": 448, "seen": 0}
    assert {name: one["features"] for name, one in found["models"].items()} == {
        "teacher": 64, "student": 8, "control": 8, "untrained": 8
    }  # fmt: skip
    for one in found["models"].values():
        assert one["low"] <= one["value"] <= one["high"]
        assert len(one["per_draw"]) == 3
    values = {name: one["value"] for name, one in found["models"].items()}
    # Odd or even is a coin to who knows nothing.
    assert values["teacher"] > 0.75
    assert len(found["models"]["student"]["per_seed"]) == 3
    assert len(found["models"]["teacher"]["per_seed"]) == 1
    effect = found["comparisons"]["student_control"]
    assert effect["effect"] == pytest.approx(values["student"] - values["control"])
    assert found["verdict"]["word"] == effect["word"]


def test_a_whole_run_shows_it_and_does_nothing_again(again):
    data = {**RECIPE, "seeds": 1}
    recipe, place = recipes.loads(yaml.safe_dump(data), name="few.yaml", folder=again)
    record = run(recipe, place=place, out=again / "run")
    assert set(record.get("transfer", "models")) == {"teacher", "student", "control", "untrained"}
    page = (again / "run" / "report.html").read_text()
    assert "The features on another task" in page
    assert "student over untrained" in page
    watcher = Watcher()
    run(recipe, place=place, out=again / "run", progress=watcher)
    assert any("nothing to do" in line for line in watcher.said)
    assert not watcher.done


def test_few_labels_are_drawn_anew_class_by_class_and_never_from_test_rows(moved):
    chosen = load_file(moved[0] / "run" / "transfer" / "rows" / "rows.safetensors")
    assert chosen["labelled"].shape == (3, 40)
    assert not set(chosen["labelled"].ravel().tolist()) & set(chosen["test"].tolist())
    assert len({tuple(one) for one in chosen["labelled"].tolist()}) == 3
    parity = np.load(moved[0] / "other.npz")["parity"]
    for drawn in chosen["labelled"]:
        assert 18 <= parity[drawn].sum() <= 22
        assert len(set(drawn.tolist())) == 40


@pytest.mark.parametrize(("arm", "seed"), [("student", 1), ("control", 2)])
def test_a_score_is_that_of_a_head_on_what_the_last_layer_reads(moved, arm, seed):
    folder, result = moved
    weights = load_weights(folder / f"run/distil/{arm}-{seed}/weights.safetensors")
    network = MLP(inputs=64, width=10, hidden=[8])
    own = {k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")}
    network.load_state_dict(own)
    last, read = list(network.modules())[-1], []
    hook = last.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    other = np.load(folder / "other.npz")
    pixels = torch.from_numpy(other["inputs"].astype(np.float32) / 16.0)
    with torch.no_grad():
        network.eval()(pixels.flatten(1))
    hook.remove()
    features, parity = read[0].numpy(), other["parity"]
    chosen = load_file(folder / "run/transfer/rows/rows.safetensors")
    scores = []
    for drawn in chosen["labelled"]:
        head = fit_head(features[drawn], parity[drawn], kind="classification", width=2, seed=0)
        answers = head(features[chosen["test"]]).argmax(axis=1)
        scores.append(float((answers == parity[chosen["test"]]).mean()))
    found = result["models"][arm]["per_seed"][seed]
    # A row whose two logits are nearly equal may fall to either side.
    assert found == pytest.approx(float(np.mean(scores)), abs=0.005)


def test_a_finished_other_task_is_not_done_again(moved, again):
    work, result = moved_on(again)
    assert work.worked == []
    assert result == moved[1]


def test_nothing_of_the_other_task_moves_the_distillation(moved, again):
    work, result = moved_on(again, changed(labelled=60, draws=2))
    assert work.worked == ["transfer/rows", "transfer/heads"]
    assert result["rows"]["labelled"] == 60
    work, result = moved_on(again, {k: v for k, v in RECIPE.items() if k != "transfer"})
    assert (work.worked, result) == ([], None)


def test_a_stage_that_was_stopped_goes_on_with_the_next_model(again):
    data = changed(draws=2)
    with pytest.raises(Stopped):
        moved_on(again, data, Watcher(stop=4))
    work = again / "run" / ".work" / "transfer" / "heads"
    before = {p.name: p.stat().st_mtime_ns for p in work.glob("*.safetensors")}
    assert len(before) == 4
    moved_on(again, data)
    done = again / "run" / "transfer" / "heads"
    assert {name: (done / name).stat().st_mtime_ns for name in before} == before
    assert len(list(done.glob("*.safetensors"))) == 10


def test_a_layer_may_be_named_and_a_wrong_one_is_told(again):
    with pytest.raises(ModelError, match="no module `stages`"):
        moved_on(again, changed(features="stages"))
    names = [name for name, module in MLP(inputs=64, width=10, hidden=[8]).named_modules() if name]
    _, result = moved_on(again, changed(features=names[-1]))
    # Its answers to the ten digits themselves.
    assert result["models"]["student"]["features"] == 10
    assert result["models"]["teacher"]["features"] == 64


@pytest.mark.parametrize("which", ["features", "teacher_features"])
def test_a_layer_that_is_not_there_is_found_before_a_student_is_trained(which, tmp_path):
    write_rows(tmp_path)
    with pytest.raises(ModelError, match="no module `stages`"):
        moved_on(tmp_path, changed(**{which: "stages"}))
    assert not list(tmp_path.rglob("student-0"))
    assert not (tmp_path / "distil").exists()


def test_a_regression_gets_ridge_and_r2(again):
    source = {**FEW["source"], "labels": "other.npz:bright"}
    _, found = moved_on(again, changed(source=source, labelled=300))
    assert found["score"]["name"] == "r2"
    assert found["task"] == {"name": "regression", "classes": None, "targets": ["target 1"]}
    assert found["models"]["teacher"]["value"] > 0.5


def test_rows_that_the_student_has_seen_are_warned_of(again):
    source = {"kind": "arrays", "inputs": "own.npz:inputs", "labels": "own.npz:digits"}
    work, result = moved_on(again, changed(source=source))
    seen = result["rows"]["seen"]
    assert 0 < seen < result["rows"]["test"]
    assert any(f"{seen} of" in line and "it knows" in line for line in work.notes)


def test_without_a_control_nothing_is_proved(tmp_path):
    write_rows(tmp_path)
    step = {**RECIPE["steps"][0], "control": False}
    _, found = moved_on(tmp_path, {**RECIPE, "steps": [step], "seeds": 1})
    assert found["verdict"]["word"] == "UNDECIDED"
    assert "without a control" in found["verdict"]["sentence"]
    assert "student_control" not in found["comparisons"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": {**FEW["source"], "inputs": "other.npz:tall"}}, r"\[8, 7, 1\].*\[8, 8, 1\]"),
        ({"source": {"kind": "diabetes"}}, r"\[10\] float32 \(table\).*\[8, 8, 1\]"),
        ({"source": {"kind": "arrays", "inputs": "other.npz:inputs"}}, "no labels"),
        ({"labelled": 3}, "choose from 4 to 448"),
        ({"labelled": 5000}, "choose from 4 to 448"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_teacher_is_trained(changes, told, tmp_path):
    write_rows(tmp_path)
    data = yaml.safe_dump(changed(**changes))
    recipe, place = recipes.loads(data, name="few.yaml", folder=tmp_path)
    with pytest.raises(DataError, match=rf"the other task \(`transfer`\).*{told}"):
        run(recipe, place=place, out=tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()


def test_its_source_is_checked_like_that_of_the_data(tmp_path):
    write_rows(tmp_path)
    data = changed(source={"kind": "arrays", "inputs": "gone.npz:inputs", "colour": 3})
    recipe, place = recipes.loads(yaml.safe_dump(data), name="few.yaml", folder=tmp_path)
    with pytest.raises(RecipeError) as error:
        build.check(recipe, place)
    paths = {mistake.path for mistake in error.value.mistakes}
    assert paths == {("transfer", "source", "inputs"), ("transfer", "source", "colour")}


def test_its_fingerprint_knows_the_rows_the_arms_and_the_margin(moved):
    depends = read_json(moved[0] / "run/transfer/heads/stage.json")["depends"]
    assert set(depends["arms"]) == {f"{a}-{s}" for a in ("student", "control") for s in range(3)}
    assert {"rows", "teacher", "margin", "features"} <= set(depends)
    files = read_json(moved[0] / "run/transfer/rows/stage.json")["depends"]["files"]
    assert set(files) == {"inputs", "labels"}
