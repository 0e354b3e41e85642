"""Nothing old is taken for new: what each stage depends on, and what must not be done again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from understudy import recipe as recipes
from understudy.pipeline import run

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Dropout(0.2), nn.Linear(width, 10),
        )

    def forward(self, rows):
        return SIGN * self.net(rows)
"""

LOSS = """
from torch import nn

class Own(nn.Module):
    reads, needs = "logits", ("logits",)

    def forward(self, student, teacher):
        return SIGN * (student - teacher).square().mean(dim=1)
"""


class Stages:
    """Progress that remembers which work was done."""

    def __init__(self):
        self.done = []

    def say(self, line):
        pass

    def track(self, name, total, unit):
        from contextlib import nullcontext

        self.done.append(name.partition(",")[0])
        return nullcontext(lambda done, note="": None)


@pytest.fixture
def again(tmp_path):
    """Run a recipe in one folder, again and again; which work each run did."""

    def start(data, **options):
        recipe, place = recipes.loads(yaml.safe_dump(data), name="stale.yaml", folder=tmp_path)
        stages = Stages()
        run(recipe, place=place, out=tmp_path / "run", progress=stages, **options)
        return set(stages.done)

    return start


def code(path, text, sign=1):
    path.write_text(text.replace("SIGN", str(sign)))


def forget(name):
    """Import a changed file anew, as a new process would."""
    for module in [m for m, v in sys.modules.items() if name in str(getattr(v, "__file__", ""))]:
        del sys.modules[module]


def test_models_train_in_training_mode(small, again, tmp_path):
    code(tmp_path / "net.py", NETWORK)
    own = {"kind": "custom", "target": "net.py:Net"}
    data = small(seeds=1, student={"model": own})
    data["teacher"] = {"model": own, "training": {"epochs": 2}}
    again(data)
    for part in ("teacher", "distil/student-0", "distil/control-0"):
        weights = load_file(tmp_path / "run" / part / "weights.safetensors")
        counted = next(v for n, v in weights.items() if n.endswith("num_batches_tracked"))
        assert counted > 0, f"{part} never updated its batch statistics"


def test_another_split_trains_everything_again(small, again, tmp_path):
    fixed = {"preprocess": {"scale": 16.0, "mean": [0.3], "std": [0.4]}}
    again(small(seeds=1, data=fixed))
    done = again(small(seeds=1, data={**fixed, "seed": 1}))
    assert {"teacher: training", "teacher: labelling", "student", "control", "export"} <= done
    splits = load_file(tmp_path / "run/data/splits.safetensors")
    labelled = load_file(tmp_path / "run/labels/shard-00000.safetensors")["ids"]
    assert not set(labelled.tolist()) & set(splits["test"].tolist())


def test_changed_code_of_a_student_trains_it_again(small, again, tmp_path):
    code(tmp_path / "net.py", NETWORK)
    data = small(seeds=1, student={"model": {"kind": "custom", "target": "net.py:Net"}})
    again(data)
    assert again(data) == set()
    code(tmp_path / "net.py", NETWORK, sign=-1)
    forget("net.py")
    done = again(data)
    assert {"student", "control", "export"} <= done
    assert "teacher: training" not in done


def test_changed_code_of_a_teacher_labels_again_and_leaves_the_control(small, again, tmp_path):
    code(tmp_path / "net.py", NETWORK)
    data = small(seeds=1)
    data["teacher"] = {"model": {"kind": "custom", "target": "net.py:Net"}}
    again(data)
    code(tmp_path / "net.py", NETWORK, sign=-1)
    forget("net.py")
    done = again(data)
    assert {"teacher: labelling", "student"} <= done
    assert "control" not in done


def test_a_changed_file_that_a_predictor_is_given_labels_again(small, again, tmp_path):
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "def make(weights, note):\n"
        "    table = np.load(weights)\n"
        "    return lambda rows: rows.reshape(len(rows), 64).astype(float) @ table\n"
    )
    weights = np.random.default_rng(0).standard_normal((64, 10))
    np.save(tmp_path / "w.npy", weights)
    given = {"weights": str(tmp_path / "w.npy"), "note": "no file at all? " * 300}
    own = {"kind": "custom", "target": "own.py:make", "arguments": given}
    data = small(seeds=1)
    data["teacher"] = {"predictor": own}
    again(data)
    assert again(data) == set()
    np.save(tmp_path / "w.npy", -weights)
    done = again(data)
    assert {"teacher: labelling", "student"} <= done
    assert "control" not in done


def test_changed_code_of_a_loss_trains_the_student_again(small, again, tmp_path):
    code(tmp_path / "loss.py", LOSS)
    own = {"kind": "custom", "target": "loss.py:Own", "weight": 0.1}
    data = small(seeds=1)
    data["steps"][0] = {**data["steps"][0], "objective": [{"kind": "hard_label"}, own]}
    again(data)
    code(tmp_path / "loss.py", LOSS, sign=2)
    forget("loss.py")
    assert {"student"} <= again(data)


def test_other_views_train_the_teacher_again(small, again):
    again(small(seeds=1, data={"views": [{"kind": "crop", "padding": 1}]}))
    done = again(small(seeds=1, data={"views": [{"kind": "flip"}]}))
    assert {"teacher: training", "student", "control"} <= done


def test_one_more_seed_trains_that_seed_alone(small, again):
    again(small(seeds=1))
    done = again(small(seeds=2))
    assert "teacher: training" not in done
    assert "student" in done


def test_a_run_of_another_recipe_in_between_is_noticed(small, again, tmp_path):
    first = small(seeds=1)
    again(first)
    before = json.loads((tmp_path / "run/run.json").read_text())["files"]["onnx"]
    other = small(seeds=1)
    other["steps"][0] = {**other["steps"][0], "training": {"epochs": 1}}
    again(other, until="export")
    foreign = Path(before).read_bytes()
    assert {"student", "control", "export"} <= again(first)
    assert Path(before).read_bytes() != foreign


def test_an_evaluation_without_a_report_is_no_finished_run(small, again, tmp_path):
    again(small(seeds=1))
    other = small(seeds=1, evaluate={"margin": 0.05})
    again(other, until="evaluate")
    assert not (tmp_path / "run/report.html").exists(), "the old report belongs to another verdict"
    again(other)
    assert (tmp_path / "run/report.html").is_file()


def test_a_regression_teacher_of_ours_keeps_its_units(small, again, tmp_path):
    data = small(task={"kind": "regression"}, data={"source": {"kind": "diabetes"}, "rows": None})
    data["seeds"] = 1
    data["teacher"]["training"] = {"epochs": 20, "optimizer": {"learning_rate": 0.01}}
    again(data)
    first = json.loads((tmp_path / "run/run.json").read_text())["models"]["teacher"]["scores"]["r2"]
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes((tmp_path / "run/teacher/weights.safetensors").read_bytes())
    data["teacher"] = {"model": data["teacher"]["model"], "weights": weights.name}
    again(data)
    second = json.loads((tmp_path / "run/run.json").read_text())["models"]["teacher"]["scores"]
    assert second["r2"]["value"] == pytest.approx(first["value"], abs=1e-4)


@pytest.mark.parametrize("who", ["student", "predictor", "source"])
def test_code_of_the_users_that_fails_is_the_users_to_mend(small, again, tmp_path, who):
    from understudy.errors import UnderstudyError

    (tmp_path / "broken.py").write_text(
        "from torch import nn\n"
        "def small_net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(5, 10))\n"
        "def ask():\n    return lambda rows: {}['nothing']\n"
        "def rows():\n    return open('/there/is/nothing')\n"
    )
    data = small(seeds=1)
    if who == "student":
        data["student"] = {"model": {"kind": "custom", "target": "broken.py:small_net"}}
    elif who == "predictor":
        data["teacher"] = {"predictor": {"kind": "custom", "target": "broken.py:ask"}}
    else:
        data["data"]["source"] = {"kind": "custom", "target": "broken.py:rows"}
    with pytest.raises(UnderstudyError, match=r"mat1|KeyError|FileNotFoundError"):
        again(data)


def test_two_processes_train_one_student_and_end_together(small, tmp_path):
    trainer = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    data = small(seeds=1)
    training = {"epochs": 2, "batch_size": 32, "trainer": trainer}
    data["steps"][0] = {**data["steps"][0], "training": training}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", "29577", "-m", "understudy", "run", "recipe.yaml", "--out", "run"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/report.html").is_file()
    history = json.loads((tmp_path / "run/distil/student-0/history.json").read_text())
    rows = json.loads((tmp_path / "run/run.json").read_text())["rows"]["train"]
    full, rest = divmod(rows // 2, 32)  # a last row alone is left out
    assert history[-1]["step"] == 2 * (full + (rest > 1))


def test_processes_that_nobody_asked_for_are_refused(small, tmp_path, monkeypatch):
    from understudy.errors import RunError
    from understudy.pipeline.crew import muster, wanted_devices
    from understudy.recipe import Training

    assert wanted_devices(Training(trainer={"devices": "2"})) == 2
    assert wanted_devices(Training(trainer={"devices": [0, 1], "num_nodes": 2})) == 4
    with pytest.raises(RunError, match="torchrun --nproc-per-node 2"):
        muster([Training(trainer={"devices": 2})])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="2 processes were started"):
        muster([Training()])
    phases = [Training(trainer={"devices": 1}), Training(trainer={"devices": 2})]
    with pytest.raises(RunError, match=r"as many devices.* 1 and 2"):
        muster(phases, phases)


def test_a_row_that_comes_twice_in_an_epoch_comes_in_two_views():
    from understudy.data.loaders import MemoryLoader
    from understudy.data.views import Crop, Views

    rows = torch.arange(4 * 64).reshape(4, 8, 8, 1).to(torch.uint8)
    loader = MemoryLoader(
        inputs=rows, labels=None, ids=torch.arange(4), positions=np.arange(4), batch_size=4,
        views=Views([Crop(padding=2)]), seed=0, length=12,
    )  # fmt: skip
    seen = set()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            seen |= set(zip(batch.ids.tolist(), batch.views.tolist(), strict=True))
    assert len(seen) == 36


@pytest.mark.slow
def test_two_processes_train_what_has_no_gradient_everywhere(tmp_path):
    """A phase of hints leaves the last layers alone, and a weight of 0 its adapter."""
    training = {
        "epochs": 1,
        "batch_size": 32,
        "trainer": {"accelerator": "cpu", "devices": 2, "strategy": "ddp"},
    }
    hint = {"kind": "hint", "layers": "auto"}
    ctkd = {"kind": "ctkd", "weight": {"start": 0, "end": 1}}
    data = {
        "data": {"source": {"kind": "digits"}, "rows": 200},
        "teacher": {"model": {"kind": "resnet", "depth": 8, "base": 4}, "training": {"epochs": 1}},
        "student": {"model": {"kind": "resnet", "depth": 8, "base": 2}},
        "steps": [
            {
                "phases": [{"objective": [hint]}, {"objective": [{"kind": "hard_label"}, ctkd]}],
                "training": training,
                "control": False,
            }
        ],
        "seeds": 1,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", "29578", "-m", "understudy", "run", "recipe.yaml", "--out", "run"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/distil/student-0/weights.safetensors").is_file()
