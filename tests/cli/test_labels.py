"""`understudy labels`."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from labels.conftest import FakeTeacher, record_ids
from understudy.cli.main import run as command

RECIPE = """
name: small
data: {source: {kind: digits}, rows: 300}
teacher: {model: {kind: mlp, hidden: [16]}, training: {epochs: 1}}
student: {model: {kind: mlp, hidden: [4]}}
steps: [{training: {epochs: 1}}]
seeds: 1
"""


@pytest.fixture
def store(tmp_path):
    record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(20), views=2)
    return tmp_path / "store"


def test_info_tells_what_is_in_it(store, capsys):
    assert command(["labels", "info", str(store)]) == 0
    told = capsys.readouterr().out
    for part in ("complete", "40 in 5 shards", "1 to 2", "dense (precision float32), [3]", "aaaa"):
        assert part in told


def test_info_reads_the_manifest_only(store, capsys):
    for shard in store.glob("shard-*"):
        shard.unlink()
    assert command(["labels", "info", str(store), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["views"], told["files"]) == (40, {"first": 1, "count": 2}, 5)


def test_a_run_stands_for_its_store(store, tmp_path, capsys):
    shutil.copytree(store, tmp_path / "run" / "labels")
    assert command(["labels", "verify", str(tmp_path / "run")]) == 0
    assert "is whole: 40 rows, 5 shards" in capsys.readouterr().out


def test_verify_names_what_is_damaged(store, capsys):
    path = store / "shard-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert command(["labels", "verify", str(store)]) == 2
    assert "shard-00003.safetensors is damaged" in capsys.readouterr().err


def test_export_writes_columns_and_never_over_a_file(store, tmp_path, capsys):
    out = tmp_path / "deep" / "labels.parquet"
    assert command(["labels", "export", str(store), "--out", str(out)]) == 0
    assert "40 rows" in capsys.readouterr().out
    assert pq.read_table(out).num_rows == 40
    assert command(["labels", "export", str(store), "--out", str(out)]) == 2
    assert "never overwrites" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["info", "verify", "export"])
def test_a_folder_without_a_store_is_a_mistake_in_a_line(tmp_path, capsys, what):
    assert command(["labels", what, str(tmp_path)]) == 2
    assert "is no label store" in capsys.readouterr().err


def test_an_estimate_is_what_labelling_then_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    assert command(["labels", "estimate", "small.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["fits"]
    assert not (tmp_path / "runs" / "small" / "labels").exists()
    assert command(["label", "small.yaml", "--quiet"]) == 0
    files = (tmp_path / "runs" / "small" / "labels").glob("*.safetensors")
    size = sum(path.stat().st_size for path in files)
    assert told["bytes"] == pytest.approx(size, rel=0.2)
    manifest = json.loads((tmp_path / "runs" / "small" / "labels" / "manifest.json").read_text())
    assert told["rows"] == manifest["rows"]


def test_an_estimate_of_nothing_says_why(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE + "labels: {use: live}\n")
    assert command(["labels", "estimate", "small.yaml"]) == 2
    assert "stores no labels" in capsys.readouterr().err
