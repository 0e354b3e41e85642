"""A run that is killed or interrupted goes on, and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from safetensors.numpy import load_file

# Whoever runs the tests in the background ignores Ctrl-C for all of its children.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from understudy.cli import main
main()
"""


def start(folder):
    arguments = ["run", str(folder / "recipe.yaml"), "--out", str(folder / "run")]
    return subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(folder, pattern, process, seconds=120):
    """Until a file of that pattern exists."""
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{pattern} never came: {process.communicate()[1][-2000:]}")
        time.sleep(0.01)


def finish(folder):
    process = start(folder)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told


@pytest.fixture
def prepared(tmp_path, small):
    # Long enough that a busy machine sees the checkpoint before the end.
    training = {"epochs": 150, "checkpoint_seconds": 0}
    data = small(seeds=1)
    data["steps"][0] = {**data["steps"][0], "training": training}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    return tmp_path


def test_a_run_killed_while_training_ends_with_the_same_weights(prepared):
    process = start(prepared)
    wait_for(prepared, "run/.work/distil/student-0/phase-1/checkpoint.ckpt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(prepared)
    _, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    (prepared / "run").rename(prepared / "killed")
    finish(prepared)
    weights = [
        load_file(prepared / name / "distil/student-0/weights.safetensors")
        for name in ("killed", "run")
    ]
    for name, value in weights[0].items():
        assert (value == weights[1][name]).all(), name


def test_ctrl_c_leaves_a_run_that_goes_on(prepared):
    process = start(prepared)
    wait_for(prepared, "run/.work/distil/student-0/phase-1/checkpoint.ckpt", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in told
    assert "Traceback" not in told
    again = start(prepared)
    _, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert "teacher" not in told, "a finished stage was done twice"


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_numbers(prepared):
    for number in range(25):
        process = start(prepared)
        time.sleep(2.0 + 0.35 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(prepared)
    (prepared / "run").rename(prepared / "killed")
    finish(prepared)
    files = [
        f"{part}/weights.safetensors"
        for part in ("teacher", "distil/student-0", "distil/control-0")
    ]
    for file in [*files, "labels/shard-00000.safetensors"]:
        assert (prepared / "killed" / file).read_bytes() == (prepared / "run" / file).read_bytes()
