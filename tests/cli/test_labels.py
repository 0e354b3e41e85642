"""`understudy labels`."""

import json
import random
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from labels.conftest import FakeTeacher, record_ids
from understudy.cli.main import run as command
from understudy.pipeline.estimating import Estimate

TEXTS = """
task: {kind: token_classification}
data:
  source: {kind: restoring, path: t.txt, words: 200, least: 3}
  test: 0.2
  overlap: allow
  tokenizer: {size: 80, max_length: 90}
teacher: {model: {kind: text_cnn, dim: 8, filters: 8, kernels: [3]}, training: {epochs: 1}}
student: {model: {kind: text_bilstm, dim: 8, hidden: 8}}
labels: {batch_size: 16}
steps: [{objective: [{kind: soft_target}], training: {epochs: 1}}]
seeds: 1
"""
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


def test_info_tells_how_a_recipes_store_was_made(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(RECIPE)
    store = str(tmp_path / "shared")
    arguments = [str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]
    assert command(["label", *arguments, "--set", f"labels.store={store}"]) == 0
    capsys.readouterr()
    assert command(["labels", "info", store]) == 0
    told = capsys.readouterr().out
    assert "made with: backends" in told
    assert '[["eager", null]]' in told


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


class TestRunsThatNameAStore:
    """A run whose recipe has `labels.store`."""

    @pytest.fixture
    def run(self, tmp_path):
        """A run's recipe as it is kept beside a store of its own, which is an old one."""

        def make(address):
            record_ids(tmp_path / "run" / "labels", teacher=FakeTeacher(), ids=np.arange(7))
            head = f"# small.yaml; relative paths start from {tmp_path}\n"
            recipe = head + RECIPE + f"labels: {{store: {address}}}\n"
            (tmp_path / "run" / "recipe.yaml").write_text(recipe)
            return str(tmp_path / "run")

        return make

    @pytest.mark.parametrize("address", ["store", "../%s/store"])
    def test_it_is_the_one_that_is_meant(self, store, run, tmp_path, capsys, address):
        folder = run(address % tmp_path.name if "%" in address else address)
        assert command(["labels", "info", folder]) == 0
        told = capsys.readouterr().out
        assert "40 in 5 shards" in told
        assert command(["labels", "info", folder, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["store"] == str(store)
        assert command(["labels", "verify", folder]) == 0
        assert f"{store} is whole: 40 rows" in capsys.readouterr().out

    def test_one_behind_a_url_is_told_of_and_its_copy_is_read(self, store, run, tmp_path, capsys):
        folder = run(f"file://{store}")
        assert command(["labels", "info", folder, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["rows"], told["store"]) == (40, f"file://{store}")
        assert command(["labels", "verify", folder]) == 0
        assert "7 rows" in capsys.readouterr().out
        shutil.rmtree(tmp_path / "run" / "labels")
        assert command(["labels", "verify", folder]) == 2
        assert "the run has no copy of them yet" in capsys.readouterr().err.replace("\n", " ")

    @pytest.mark.parametrize("address", ["nothing", "file:///nothing/there"])
    def test_one_that_is_not_made_yet_is_named(self, run, capsys, address):
        assert command(["labels", "info", run(address)]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "is no label store" in told
        assert address in told

    @pytest.mark.parametrize("recipe", ["{", "teacher: {layers: 3}", RECIPE])
    def test_a_run_without_a_name_or_of_another_version_shows_its_own(
        self, run, tmp_path, capsys, recipe
    ):
        folder = run("elsewhere")
        (tmp_path / "run" / "recipe.yaml").write_text(recipe)
        assert command(["labels", "info", folder, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 7

    def test_a_store_that_lies_beside_a_recipe_is_itself(self, store, capsys):
        (store / "recipe.yaml").write_text(RECIPE + "labels: {store: elsewhere}\n")
        assert command(["labels", "info", str(store), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 40


def test_export_says_how_many_rows_are_left_out(tmp_path, capsys):
    class Silent(FakeTeacher):
        def __call__(self, batch):
            told = super().__call__(batch)
            told["logits"][(batch.ids == 3) & (batch.views == 2)] = np.nan
            return told

    record_ids(tmp_path / "store", teacher=Silent(), ids=np.arange(20), views=2,
               on_bad_rows="skip")  # fmt: skip
    out = tmp_path / "labels.parquet"
    assert command(["labels", "export", str(tmp_path / "store"), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "38 rows" in told
    assert "left out: 2 rows, 1 that are not in the store" in told
    assert "1 whose id lacks another view" in told


def test_a_whole_export_says_nothing_of_the_kind(store, tmp_path, capsys):
    out = tmp_path / "labels.parquet"
    assert command(["labels", "export", str(store), "--out", str(out)]) == 0
    assert "left out" not in capsys.readouterr().out


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


def test_an_estimate_of_texts_counts_long_ones_too(tmp_path, capsys, monkeypatch):
    """They are asked for shortest first, so the first batches say too little."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    lines = [
        " ".join(["Some", *("word" for _ in range(3 + number % 60)), draw.choice("ab"), "."])
        for number in range(400)
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    (tmp_path / "texts.yaml").write_text(TEXTS)
    assert command(["labels", "estimate", "texts.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert command(["label", "texts.yaml", "--quiet"]) == 0
    files = (tmp_path / "runs" / "texts" / "labels").glob("*.safetensors")
    assert told["bytes"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.25)


def test_an_estimate_of_nothing_says_why(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE + "labels: {use: live}\n")
    assert command(["labels", "estimate", "small.yaml"]) == 2
    assert "stores no labels" in capsys.readouterr().err


def test_free_space_behind_a_url_is_unknown_and_the_copy_is_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"file://{tmp_path}/bucket/labels"
    (tmp_path / "small.yaml").write_text(RECIPE + f"labels: {{store: {url}}}\n")
    assert command(["labels", "estimate", "small.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["free"], told["fits"]) == (None, None)
    assert told["copy"] > told["bytes"]
    assert command(["labels", "estimate", "small.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "unknown behind a URL" in shown
    assert "NOT ENOUGH" not in shown
    assert not (tmp_path / "bucket").exists()


@pytest.mark.parametrize(("free", "copy", "fits"), [
    (10, None, True), (9, None, False), (None, 10, None), (None, 9, False),
])  # fmt: skip
def test_what_is_known_of_the_room(free, copy, fits, tmp_path):
    made = Estimate(rows=1, sampled=1, bytes=10, seconds=1.0, free=free, folder=tmp_path, copy=copy)
    assert made.fits is fits


@pytest.mark.parametrize("name", ["manifest.json", "index.safetensors"])
def test_what_is_said_of_a_damaged_file_leads_out(tmp_path, capsys, name):
    (tmp_path / "r.yaml").write_text(RECIPE)
    store, out = tmp_path / "shared", str(tmp_path / "labels.parquet")
    label = ["label", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]
    label += ["--set", f"labels.store={store}"]
    assert command(label) == 0
    whole = {path.name: path.read_bytes() for path in store.iterdir() if path.is_file()}
    path = store / name
    # The size stays: this is not a file that was cut off.
    path.write_bytes(
        bytes(len(whole[name])) if name.endswith("json") else whole[name][:-8] + b"?" * 8
    )
    capsys.readouterr()
    assert command(["labels", "export", str(store), "--out", out]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "delete" in told
    assert name in told
    path.unlink()
    assert command(label) == 0
    assert command(["labels", "export", str(store), "--out", out]) == 0
    again = {path.name: path.read_bytes() for path in store.iterdir() if path.is_file()}
    assert again == whole
