"""The steps of a run on real arms: what each leaves, in which order, and that stops change none."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from pipeline.chains import (
    DEPTH,
    ONE,
    STILL,
    WIDTH,
    answers,
    bytes_of,
    cut_from,
    distil,
    rows_of,
    weights_of,
    zeros,
)
from pipeline.lessons import STEPS, Lines, StoppedError, begun, learned, recipe_of
from pipeline.test_kills import start, wait_for
from understudy.errors import ExportError, ModelError
from understudy.evaluate.cost import parameters
from understudy.folders import read_json
from understudy.pipeline.distil import start as student_at_its_start
from understudy.pipeline.distil import trained_module

CUT = {"kind": "cut", "cuts": [WIDTH, {"kind": "low_rank", "energy": 0.9}]}
PRUNE = {**distil(training={**ONE, "epochs": 2}), "kind": "prune", "to": 0.6}
AWARE = {**distil(), "kind": "quantize", "aware": True, "calibration_rows": 16}
ALL = [distil(), CUT, PRUNE, AWARE]
PRUNED = "network.stages.1.0.conv2.weight"


@pytest.fixture(scope="module")
def whole(with_blocks, tmp_path_factory):
    """A folder in which every kind of step was done, with its work and its only arm."""
    from pipeline.lessons import copied

    folder = copied(with_blocks, tmp_path_factory.mktemp("whole") / "run-of-all")
    work, (arm,) = learned(cut_from(DEPTH, steps=ALL), folder)
    return folder, work, arm


# --- what every step leaves ----------------------------------------------------------------------


def test_every_step_leaves_weights_that_fit_the_structure_after_it(whole):
    _, work, arm = whole
    sizes = [parameters(trained_module(work, arm, step=step)) for step in range(4)]
    assert parameters(student_at_its_start(work, 0)) == sizes[0] > sizes[1] == sizes[2] > sizes[3]
    kept = sorted(path.name for path in arm.folder.glob("step-*"))
    assert kept == [f"step-{step}.safetensors" for step in (1, 2, 3)]
    last = trained_module(work, arm, step=3).state_dict()
    for name, value in trained_module(work, arm).state_dict().items():
        assert torch.equal(last[name], value), name


def test_a_cut_goes_on_with_the_weights_before_it(whole):
    """Right after it, the cut student answers as the cut of what was trained so far."""
    from understudy import build
    from understudy.pipeline.cutting import calibration

    _, work, arm = whole
    before = trained_module(work, arm, step=0)
    network = before.network
    for data in read_json(arm.folder / "cut-2.json")["plans"]:
        rows = before.preprocess(calibration(work, 256)[0])
        network = build.apply_cut(build.read_plan(data), network, rows, seed=0, family=None).module
    rows = rows_of(work)
    with torch.no_grad():
        wanted = network.eval()(before.preprocess(rows))
    found = answers(trained_module(work, arm, step=1), rows)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_pruned_weights_stay_zero_while_rounding_is_learned(whole):
    _, _, arm = whole
    files = ("step-3.safetensors", "weights.safetensors")
    pruned, ended = (weights_of(arm.folder / name) for name in files)
    kernels = [n for n, v in pruned.items() if v.ndim == 4 and zeros(pruned, n) > 0]
    gone = {name: pruned[name] == 0 for name in kernels}
    share = sum(int(g.sum()) for g in gone.values()) / sum(g.numel() for g in gone.values())
    assert share > 0.5
    for name, mask in gone.items():
        assert bool((ended[name][mask] == 0).all()), name


def test_an_aware_step_leaves_its_ranges_and_a_plain_float_network(whole):
    _, work, arm = whole
    ranges = read_json(arm.folder / "ranges.json")
    assert len(ranges) > 4
    module = trained_module(work, arm)
    assert not any("Rounded" in type(m).__name__ for m in module.modules())
    assert not any("range" in name for name in module.state_dict())


def test_a_finished_chain_is_not_done_again(whole):
    folder, _, _ = whole
    progress = Lines()
    work, _ = learned(cut_from(DEPTH, steps=ALL), folder, progress)
    assert work.worked == []


# --- orders --------------------------------------------------------------------------------------


def test_a_pattern_stays_through_another_training(cutting):
    prune = {**distil(), "kind": "prune", "to": "2:4"}
    _, (arm,) = learned(cut_from(DEPTH, steps=[prune, distil()]), cutting())
    files = ("step-1.safetensors", "weights.safetensors")
    for file in files:
        kernel = weights_of(arm.folder / file)[PRUNED]
        groups = (kernel == 0).movedim(1, -1).reshape(-1, 4).sum(1)
        assert bool((groups == 2).all()), file
    one, other = (weights_of(arm.folder / file)[PRUNED] for file in files)
    assert not torch.equal(one, other), "the second training moved nothing"


def test_channels_go_in_rounds(cutting):
    prune = {**distil(training={**ONE, "epochs": 2}), "kind": "prune", "to": 0.5,
             "structure": "channels", "rounds": 2}  # fmt: skip
    work, (arm,) = learned(cut_from(DEPTH, steps=[prune]), cutting())
    kept = [read_json(arm.folder / f"cut-{n}.json")["plans"][0] for n in (1, 2)]
    assert all(plan["kind"] == "width" for plan in kept)
    begin, end = student_at_its_start(work, 0), trained_module(work, arm)
    wide = [m.network.stages[1][0].conv1.out_channels for m in (begin, end)]
    assert wide == [8, 4]
    assert [p["epoch"] for p in read_json(arm.folder / "history.json")] == [1, 2]
    assert parameters(end) < parameters(begin)


def test_a_cut_may_come_first_and_a_fresh_student_may_be_cut_too(place):
    work, (arm,) = learned(recipe_of(phases=None, control=False) | {
        "steps": [{"kind": "cut", "cuts": WIDTH}, distil()],
    }, place())  # fmt: skip
    assert parameters(trained_module(work, arm)) < parameters(student_at_its_start(work, 0))


def test_a_control_goes_through_the_same_chain(cutting):
    steps = [distil(training=STILL, control=True), {"kind": "cut", "cuts": WIDTH},
             distil(training=STILL, control=True)]  # fmt: skip
    work, arms = learned(cut_from(DEPTH, steps=steps), cutting())
    one, other = (trained_module(work, arm) for arm in arms)
    assert [arm.arm for arm in arms] == ["student", "control"]
    for (name, value), same in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(value, same), name


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("piece", "step", "there", "missing"), [
    # The cut is written, and nothing of the phase after it.
    (2, 1, ["cut-2.json", "phase-1/finished.json"], ["phase-2/finished.json"]),
    (2, STEPS + 2, ["phase-2/checkpoint.ckpt"], ["phase-2/finished.json"]),
    (3, 2, ["step-3.safetensors", "phase-2/finished.json"], ["ranges.json"]),
], ids=["between-cut-and-phase", "in-pruning", "in-rounding"])  # fmt: skip
def test_a_chain_that_was_stopped_ends_as_one_that_was_not(
    piece, step, there, missing, whole, cutting
):
    folder = cutting()
    with pytest.raises(StoppedError):
        learned(cut_from(DEPTH, steps=ALL), folder, Lines("student, seed 0", step, piece))
    work = folder / "run" / ".work" / "distil" / "student-0"
    assert all((work / name).is_file() for name in there)
    assert not any((work / name).exists() for name in missing)
    written = (work / "cut-2.json").stat().st_mtime_ns
    _, (arm,) = learned(cut_from(DEPTH, steps=ALL), folder)
    assert (arm.folder / "cut-2.json").stat().st_mtime_ns == written, "the cut was chosen again"
    one, other = bytes_of(whole[0]), bytes_of(folder)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_a_cut_that_was_stopped_before_its_plan_was_written_is_made_again(whole, cutting):
    folder = cutting()
    with pytest.raises(StoppedError):
        learned(cut_from(DEPTH, steps=ALL), folder, Lines("student, seed 0", 1, 2))
    work = folder / "run" / ".work" / "distil" / "student-0"
    (work / "cut-2.json").unlink()
    learned(cut_from(DEPTH, steps=ALL), folder)
    one, other = bytes_of(whole[0]), bytes_of(folder)
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.slow
def test_a_chain_that_was_killed_ends_as_one_that_was_not(whole, cutting):
    folder = cutting()
    slow = json.loads(json.dumps(cut_from(DEPTH, steps=ALL)))
    slow["steps"][2]["training"]["epochs"] = 60
    (folder / "recipe.yaml").write_text(yaml.safe_dump(slow))
    process = start(folder)
    wait_for(folder, "run/.work/distil/student-0/phase-2/checkpoint.ckpt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "run" / "distil").exists()
    _, (arm,) = learned(slow, folder)
    other = cutting("other")
    learned(slow, other)
    one, two = bytes_of(folder), bytes_of(other)
    assert [name for name in one if one[name] != two[name]] == []
    assert (arm.folder / "ranges.json").is_file()


# --- what is done again --------------------------------------------------------------------------


def test_another_cut_in_the_chain_makes_the_arms_again_and_nothing_before_them(cutting):
    folder = cutting()
    steps = [distil(), {"kind": "cut", "cuts": WIDTH}]
    learned(cut_from(DEPTH, steps=steps), folder)
    steps[1]["cuts"] = {**WIDTH, "keep": 0.75}
    work, _ = learned(cut_from(DEPTH, steps=steps), folder)
    assert work.worked == ["rehearsal", "distil/student-0"]


def test_a_form_of_the_file_trains_nothing_again(cutting):
    folder = cutting()
    learned(cut_from(DEPTH, steps=[distil()]), folder)
    for quantize in ({"kind": "quantize"}, {"kind": "quantize", "form": "weight_int8"}):
        work, (arm,) = learned(cut_from(DEPTH, steps=[distil(), quantize]), folder)
        assert work.worked == ["rehearsal"]
        trained_module(work, arm, step=0)


def test_a_run_that_was_stopped_and_got_another_cut_makes_that_one(cutting):
    folder = cutting()
    steps = [distil(), {"kind": "cut", "cuts": WIDTH}, distil()]
    with pytest.raises(StoppedError):
        learned(cut_from(DEPTH, steps=steps), folder, Lines("student, seed 0", 1, 2))
    assert (folder / "run" / ".work" / "distil" / "student-0" / "cut-2.json").is_file()
    steps[1] = {"kind": "cut", "cuts": {**WIDTH, "keep": 0.75}}
    work, (arm,) = learned(cut_from(DEPTH, steps=steps), folder)
    assert trained_module(work, arm).network.stages[1][0].conv1.out_channels == 6


# --- found out before training -------------------------------------------------------------------

LATE = [
    ({"kind": "cut", "cuts": {"kind": "width", "parameters": 5}}, ModelError, "5"),
    ({"kind": "cut", "cuts": {"kind": "depth", "keep": 9}}, ModelError, "9"),
    ({**PRUNE, "to": "1:7"}, ModelError, "groups of 7"),
    ({**PRUNE, "layers": ["blocks.*"]}, ModelError, r"blocks"),
    ([PRUNE, {**PRUNE, "to": 0.3}], ModelError, "zero already, so `to` must be at least"),
    ({**PRUNE, "structure": "channels", "protect": ["stage"]}, ModelError, "`protect` names"),
]


@pytest.mark.parametrize(("step", "error", "law"), LATE, ids=[str(s)[:60] for s, _, _ in LATE])
def test_a_later_step_that_cannot_be_made_is_refused_before_the_teacher_is_trained(
    step, error, law, tmp_path
):
    steps = [distil(), *(step if isinstance(step, list) else [step])]
    with pytest.raises(error, match=law):
        begun(cut_from(DEPTH, steps=steps), tmp_path)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_form_that_no_layer_has_is_refused_before_the_teacher_is_trained(tmp_path):
    network = (
        "from torch import nn\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),\n"
        "        nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    (tmp_path / "net.py").write_text(network)
    data = recipe_of()
    data["student"] = {"model": {"kind": "custom", "target": "net.py:make"}}
    data["steps"] = [distil(), {"kind": "quantize", "form": "weight_int4"}]
    with pytest.raises(ExportError, match="no linear layer"):
        begun(data, tmp_path)
    assert not (tmp_path / "run" / "teacher").exists()


# --- several processes ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_a_student_that_is_cut_in_between(tmp_path):
    training = {**ONE, "trainer": {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}}
    steps = [distil(training=training), {"kind": "cut", "cuts": WIDTH}, distil(training=training)]
    data = cut_from(DEPTH, steps=steps, evaluate={"draws": 200, "latency_seconds": 0.01})
    data |= {"export": {"int8": False}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", "29583", "-m", "understudy", "run", "recipe.yaml", "--out", "run"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "run" / "run.json").read_text())["steps"]
    assert [row["name"] for row in rows] == ["teacher", "cut", "1 distil", "2 cut", "3 distil"]
    assert rows[2]["parameters"] > rows[3]["parameters"] == rows[4]["parameters"]
