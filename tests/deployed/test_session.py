import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from understudy.deployed import Deployed
from understudy.deployed.session import open_session
from understudy.errors import DataError, ExportError

RNG = np.random.default_rng(3)


def test_answers_are_the_rows_times_the_weight(opened):
    weight = RNG.normal(size=(4, 3))
    rows = RNG.normal(size=(7, 4)).astype(np.float32)
    answer = opened(weight=weight).predict(rows)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, rows.astype(np.float64) @ weight, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5, 7, 100])
def test_the_batch_size_does_not_matter(opened, batch):
    rows = RNG.normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_allclose(opened().predict(rows, batch=batch), rows)


def test_rows_are_answered_in_their_order_wherever_they_stand(opened):
    rows = RNG.normal(size=(9, 4)).astype(np.float32)
    order = RNG.permutation(9)
    deployed = opened(weight=RNG.normal(size=(4, 2)))
    np.testing.assert_array_equal(deployed.predict(rows)[order], deployed.predict(rows[order]))


def test_no_rows_give_no_answers_of_the_right_width(opened):
    answer = opened(weight=np.ones((4, 3))).predict(np.empty((0, 4), np.float32))
    assert answer.shape == (0, 3)
    assert answer.dtype == np.float32


def test_no_rows_of_any_length_give_no_answers(opened):
    deployed = opened(shape=("batch", "length"), weight=np.ones((4, 3)))
    assert deployed.input_shape == (None,)
    assert deployed.predict(np.empty((0, 4), np.float32)).shape == (0, 3)


def test_a_file_with_a_fixed_batch_answers_any_number_of_rows(opened):
    deployed = opened(shape=(3, 4))
    for count in (0, 1, 3, 4, 7):
        rows = RNG.normal(size=(count, 4)).astype(np.float32)
        np.testing.assert_allclose(deployed.predict(rows), rows.reshape(count, 4))


def test_the_file_says_what_it_takes(opened):
    deployed = opened(shape=("batch", 2, 3, 1), kind=TensorProto.UINT8)
    assert deployed.input_shape == (2, 3, 1)
    assert deployed.input_dtype == np.uint8


def test_metadata_comes_back_as_it_was_stored(opened):
    stored = {
        "task": "classification",
        "classes": ["Übung", "b"],
        "targets": None,
        "columns": [{"name": "age", "categories": None}],
        "more": {"nested": [1, 2.5, True]},
    }
    deployed = opened(metadata=stored, foreign={"author": "somebody"})
    assert deployed.metadata == stored
    assert deployed.task == "classification"
    assert deployed.classes == ("Übung", "b")
    assert deployed.targets is None
    assert deployed.columns == ({"name": "age", "categories": None},)


def test_a_foreign_file_has_no_metadata_and_still_answers(opened):
    deployed = opened(foreign={"author": "somebody"})
    assert deployed.metadata == {}
    assert (deployed.task, deployed.classes, deployed.targets, deployed.columns) == (None,) * 4
    assert deployed.predict(np.ones((1, 4), np.float32)).shape == (1, 4)


def test_numbers_are_widened_where_they_keep_their_meaning(opened):
    deployed = opened()
    for dtype in (np.uint8, np.int64, np.float16, np.float64, np.bool_):
        rows = np.ones((2, 4), dtype)
        np.testing.assert_array_equal(deployed.predict(rows), np.ones((2, 4)))


def test_rows_may_lie_in_memory_in_any_order(opened):
    rows = np.asfortranarray(RNG.normal(size=(6, 8)).astype(np.float32))[::2, ::2]
    np.testing.assert_array_equal(opened().predict(rows), rows)


def test_what_was_passed_in_is_not_changed(opened):
    rows = RNG.normal(size=(3, 4))
    before = rows.copy()
    opened().predict(rows)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (2, 4, 1), (0, 5)])
def test_rows_of_another_shape_are_refused_with_both_shapes(opened, shape):
    with pytest.raises(DataError) as caught:
        opened().predict(np.zeros(shape, np.float32))
    assert "model.onnx takes [rows, 4] of float32, but got" in str(caught.value)
    assert f"{list(shape)} of float32" in str(caught.value)


def test_floats_are_refused_where_bytes_are_expected(opened):
    deployed = opened(shape=("batch", 2, 2, 1), kind=TensorProto.UINT8)
    with pytest.raises(DataError, match=r"use `rows\.astype\(np\.uint8\)`") as caught:
        deployed.predict(np.zeros((3, 2, 2, 1), np.float32))
    assert "takes [rows, 2, 2, 1] of uint8, but got [3, 2, 2, 1] of float32" in str(caught.value)


def test_what_the_runtime_refuses_is_an_error_with_its_reason(opened):
    deployed = opened(shape=("batch", "length"), weight=np.ones((4, 3)))
    with pytest.raises(DataError, match=r"model\.onnx refuses these rows \(.+\); give it rows"):
        deployed.predict(np.zeros((2, 5), np.float32))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"there is no file .*none\.onnx; export a model"):
        Deployed.open(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08" * 100])
def test_a_damaged_file_is_named_with_its_cause(tmp_path, content, capfd):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"bad\.onnx cannot be opened .*: export the model"):
        Deployed.open(path)
    assert capfd.readouterr() == ("", "")


def test_a_half_written_file_is_damaged(make_file):
    path = make_file()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ExportError, match="cannot be opened"):
        Deployed.open(path)


def test_damaged_metadata_is_an_error(make_file):
    path = make_file(foreign={"understudy.classes": "[1, "})
    with pytest.raises(ExportError, match=r"metadata in .*model\.onnx is not JSON"):
        Deployed.open(path)


def test_a_file_of_two_inputs_is_refused_by_their_names(make_file):
    with pytest.raises(ExportError, match=r"must have one input, but .* has 2 \(rows, rowsx\)"):
        Deployed.open(make_file(inputs=2))


def test_timing_says_what_was_timed(opened):
    rows = np.ones((3, 4), np.float32)
    latency = opened().latency(rows, batch=8, threads=1, seconds=0.01)
    assert (latency.batch, latency.threads) == (8, 1)
    assert latency.runs >= 5
    assert 0 < latency.median_ms <= latency.p95_ms


def test_timing_needs_a_row(opened):
    with pytest.raises(DataError, match="timing needs a row, but got 0"):
        opened().latency(np.empty((0, 4), np.float32), batch=1, threads=1)


def test_predicting_loads_neither_torch_nor_onnx(make_file):
    path = make_file(metadata={"task": "classification", "classes": ["a", "b", "c", "d"]})
    np.save(path.with_suffix(".npy"), np.eye(4, dtype=np.float32))
    script = """
import sys
from pathlib import Path
from understudy.deployed import Deployed, answers, load_rows
deployed = Deployed.open(Path(sys.argv[1]))
rows, names = load_rows([Path(sys.argv[1]).with_suffix(".npy")], deployed)
found = answers(deployed.predict(rows), deployed)
print([name for name in sys.modules if name.split(".")[0] in ("torch", "onnx")])
print([one["class"] for one in found])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "['a', 'b', 'c', 'd']"]
    assert done.stderr == ""


def test_the_room_names_no_heavy_library():
    import understudy.deployed

    for file in Path(understudy.deployed.__file__).parent.glob("*.py"):
        text = file.read_text()
        assert "import torch" not in text
        assert "import onnx\n" not in text


def test_threads_leave_the_processor_to_others_between_calls(opened):
    """Measured, they took a quarter of the time of other sessions; a server has it as it is."""
    deployed = opened()
    name = "session.force_spinning_stop"
    assert deployed._session.get_session_options().get_session_config_entry(name) == "1"
    timed = open_session(deployed.path, threads=2).get_session_options()
    with pytest.raises(RuntimeError, match=name):
        timed.get_session_config_entry(name)
