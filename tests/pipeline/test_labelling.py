"""The stage `labels` in a run: views, codecs, ensembles, stores that are shared, bad rows."""

import json

import numpy as np
import pytest
import torch
import yaml

from pipeline.conftest import SMALL, merged
from understudy import recipe as recipes
from understudy.errors import ModelError, RecipeError, StoreError
from understudy.folders import read_json
from understudy.labels.store import LabelStore
from understudy.pipeline import run

IMAGES = {
    "data": {"views": [{"kind": "crop", "padding": 1}, {"kind": "flip"}]},
    "teacher": {
        "model": {"kind": "convnet", "filters": [4, 8], "hidden": 16}, "training": {"epochs": 1}
    },
    "student": {"model": {"kind": "convnet", "filters": [2, 4], "hidden": 8}},
    "steps": [{"training": {"epochs": 3, "checkpoint_seconds": 0}}],
    "seeds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def with_views(tmp_path_factory):
    """A run up to its export whose labels are stored in two views."""
    folder = tmp_path_factory.mktemp("views") / "run"
    data = merged(SMALL, IMAGES | {"labels": {"views": 2}})
    recipe, place = recipes.loads(yaml.safe_dump(data), name="views.yaml")
    run(recipe, place=place, out=folder, until="export")
    return folder


class TestStoredViews:
    @pytest.fixture
    def folder(self, with_views):
        return with_views

    def test_every_row_is_stored_in_as_many_views(self, folder):
        store = LabelStore(folder / "labels")
        assert list(store.views) == [1, 2]
        assert len(store) == 2 * len(store.ids())

    def test_what_is_stored_is_what_the_teacher_says_of_that_view(self, folder):
        """The picture is made anew from (seed, id, view), and shown to the network itself."""
        from understudy.contracts import Batch, Silent
        from understudy.pipeline.crew import Crew
        from understudy.pipeline.members import load_teacher
        from understudy.pipeline.passing import Way
        from understudy.pipeline.portioning import cut_rows
        from understudy.pipeline.prepare import load
        from understudy.pipeline.work import Work

        recipe, place = recipes.load(folder / "recipe.yaml")
        work = Work(recipe=recipe, place=place, folder=folder, progress=Silent(), crew=Crew(),
                    load=load)  # fmt: skip
        teacher, _ = load_teacher(work)
        store = LabelStore(folder / "labels")
        way = Way(teacher=teacher, batch_size=64, backends=(("eager", None),), device="cpu")
        seen = set()
        for batch in cut_rows(work, way).batches(0):
            assert isinstance(batch, Batch)
            found = store.read(batch.ids, batch.views)["logits"]
            torch.testing.assert_close(found, teacher(batch)["logits"], atol=1e-4, rtol=1e-4)
            seen |= set(batch.views.tolist())
        assert seen == {1, 2}
        ids = torch.from_numpy(store.ids()[:50].copy())
        first, second = (store.read(ids, torch.full_like(ids, v))["logits"] for v in (1, 2))
        assert not torch.allclose(first, second)

    def test_student_and_control_go_round_the_stored_views(self, folder):
        summary = read_json(folder / "distil" / "student-0" / "stage.json")
        assert summary["depends"]["stored_views"] == 2


@pytest.mark.parametrize("codec", [
    {"kind": "top_k", "k": 3}, {"kind": "top_p", "k": 4}, {"kind": "int8"},
    {"kind": "dense", "precision": "float16"},
])  # fmt: skip
def test_a_student_learns_from_every_codec(run_small, small, tmp_path, codec):
    plan = [{"objective": [{"kind": "soft_target", "temperature": 2.0}],
             "training": {"epochs": 8, "checkpoint_seconds": 0}, "control": False}]  # fmt: skip
    data = small(labels={"codec": codec}, seeds=1)
    data["steps"] = plan
    run_small(data, until="export")
    manifest = json.loads((tmp_path / "run" / "labels" / "manifest.json").read_text())
    assert manifest["fields"]["logits"]["codec"] == codec["kind"]
    history = read_json(tmp_path / "run" / "distil" / "student-0" / "history.json")
    losses = [point["training_loss"] for point in history]
    assert losses[-1] < 0.8 * losses[0]


def test_a_loss_that_cannot_read_listed_labels_is_named_before_anything_runs(run_small, small):
    data = small(labels={"codec": {"kind": "top_k", "k": 3}})
    data["steps"] = [{"objective": [{"kind": "logit_mse"}]}]
    with pytest.raises(RecipeError, match=r"`logit_mse` cannot read labels of codec `top_k`"):
        run_small(data)


def test_sampled_labels_at_another_temperature_are_refused_before_anything_runs(run_small, small):
    with pytest.raises(RecipeError, match=r"at temperature 4.0 cannot read labels of codec `samp"):
        run_small(small(labels={"codec": {"kind": "sampled"}}))


def test_sampled_labels_teach_at_temperature_1(run_small, small):
    data = small(labels={"codec": {"kind": "sampled", "draws": 20, "exact": 2}}, seeds=1)
    data["steps"][0]["objective"] = [{"kind": "soft_target", "temperature": 1}]
    run_small(data, until="export")


def test_other_draws_are_other_labels_and_another_student(run_small, small, tmp_path):
    """Which classes are drawn depends on how rows are cut into shards."""
    labels = {"codec": {"kind": "sampled"}}
    data = small(labels=labels | {"shard_rows": 8192}, seeds=1)
    data["steps"][0]["objective"] = [{"kind": "soft_target", "temperature": 1}]
    weights = tmp_path / "run" / "distil" / "student-0" / "weights.safetensors"
    run_small(data, until="export")
    first = weights.read_bytes()
    data["labels"] = labels | {"shard_rows": 64, "batch_size": 32}
    run_small(data, until="export")
    assert weights.read_bytes() != first


def test_a_temperature_in_an_earlier_phase_is_looked_at_too(run_small, small):
    data = small(labels={"codec": {"kind": "sampled"}})
    phases = [{"objective": [{"kind": "soft_target", "temperature": t}]} for t in (4, 1)]
    data["steps"] = [{"phases": phases}]
    with pytest.raises(RecipeError, match="at temperature 4 cannot read"):
        run_small(data)


@pytest.mark.parametrize(("labels", "law"), [
    ({"codec": {"kind": "topk"}}, "unknown kind `topk`: did you mean `top_k`?"),
    ({"codec": {"kind": "top_k", "kk": 3}}, "unknown parameter `kk`"),
    ({"codec": {"kind": "top_k", "k": 0}}, "k >= 1"),
    ({"views": 2}, "`views` counts random views, but `data.views` is empty"),
    ({"use": "live", "store": "x"}, "`use: live` stores nothing"),
    ({"backend": "fast"}, "backend"),
    ({"tolerance": 0.0}, "tolerance"),
])  # fmt: skip
def test_mistakes_in_the_section_are_found_before_anything_runs(run_small, small, labels, law):
    with pytest.raises(RecipeError) as error:
        run_small(small(labels=labels))
    assert law in str(error.value)


def test_a_backend_may_differ_as_far_as_the_recipe_allows(run_small, small, tmp_path):
    labels = {"backend": "bf16", "tolerance": 1e-7}
    with pytest.raises(ModelError, match=r"backend `bf16`: differs by"):
        run_small(small(labels=labels), until="labels")
    run_small(small(labels=labels | {"tolerance": 10.0}), until="labels")


def test_k_larger_than_the_classes_is_refused_with_both(run_small, small):
    with pytest.raises(StoreError, match=r"k=64.*10"):
        run_small(small(labels={"codec": {"kind": "top_k", "k": 64}}))


PREDICTORS = '''
import numpy as np

class Sick:
    """No finite answer for bright images."""
    def __call__(self, rows):
        totals = rows.reshape(len(rows), -1).sum(axis=1)
        logits = np.stack([rows.reshape(len(rows), -1)[:, i] for i in range(20, 30)], axis=1)
        logits = logits.astype(np.float32)
        logits[totals > 330] = np.nan
        return logits
'''


class TestBadRows:
    @pytest.fixture
    def data(self, small, tmp_path):
        (tmp_path / "sick.py").write_text(PREDICTORS)
        data = small(seeds=1)
        data["teacher"] = {"predictor": {"kind": "custom", "target": "sick.py:Sick"}}
        return data

    def test_they_are_an_error_by_default(self, run_small, data):
        with pytest.raises((ModelError, StoreError), match="must be finite"):
            run_small(data, until="labels")

    def test_they_are_left_out_for_student_and_control(self, run_small, data, tmp_path):
        data["labels"] = {"on_bad_rows": "skip"}
        run_small(data, until="export")
        left_out = read_json(tmp_path / "run" / "labels" / "stage.json")["summary"]["left_out"]
        assert len(left_out) > 0
        store = LabelStore(tmp_path / "run" / "labels")
        assert not np.isin(left_out, store.ids()).any()
        for arm in ("student-0", "control-0"):
            depends = read_json(tmp_path / "run" / "distil" / arm / "stage.json")["depends"]
            assert depends["left_out"] == left_out


def test_an_ensemble_teaches_with_the_mean_of_its_members(run_small, small, tmp_path):
    (tmp_path / "two.py").write_text(
        "import numpy as np\n"
        "def first():\n    return lambda rows: np.tile(np.arange(10.0), (len(rows), 1)) * "
        "(1 + rows.reshape(len(rows), -1)[:, 20:21] / 16)\n"
        "def second():\n    return lambda rows: np.tile(np.arange(10.0)[::-1], (len(rows), 1)) * "
        "(1 + rows.reshape(len(rows), -1)[:, 20:21] / 16)\n"
    )
    data = small(seeds=1)
    members = [{"predictor": {"kind": "custom", "target": f"two.py:{n}"}}
               for n in ("first", "second")]  # fmt: skip
    data["teacher"] = {"ensemble": members}
    run_small(data, until="labels")
    store = LabelStore(tmp_path / "run" / "labels")
    found = store.read(torch.from_numpy(store.ids().copy()))["logits"].softmax(dim=1)
    # The two say the same in opposite orders, so their mean is symmetric.
    torch.testing.assert_close(found, found.flip(1), atol=1e-5, rtol=1e-4)
    assert read_json(tmp_path / "run" / "teacher" / "stage.json")["summary"]["kind"] == "ensemble"


@pytest.mark.parametrize(("teacher", "law"), [
    ({"ensemble": [{"model": {"kind": "mlp", "hidden": [4]}}]}, "`model` needs `weights`"),
    ({"ensemble": [], "answers": "logits"}, "exactly one of"),
    ({"ensemble": [{"onnx": "x.onnx"}], "onnx": "y.onnx"}, "exactly one of"),
    ({"ensemble": [{"onnx": "x.onnx"}], "answers": "probabilities"}, "write them into the"),
])  # fmt: skip
def test_an_ensemble_that_is_not_whole_is_refused(run_small, small, teacher, law):
    data = small()
    data["teacher"] = teacher
    with pytest.raises(RecipeError) as error:
        run_small(data)
    assert law in str(error.value)


def test_ray_writes_the_same_store_as_this_process(run_small, small, tmp_path):
    """Two workers load run and teacher for themselves."""
    pytest.importorskip("ray")
    data = small(
        seeds=1, labels={"shard_rows": 64, "batch_size": 32, "codec": {"kind": "top_p", "k": 5}}
    )
    run_small(data, "serial", until="labels")
    data["labels"] |= {"engine": "ray", "workers": 2}
    run_small(data, "ray", until="labels")
    serial, ray = (
        {p.name: p.read_bytes() for p in (tmp_path / name / "labels").glob("*.safetensors")}
        for name in ("serial", "ray")
    )
    assert len(serial) > 4
    assert serial == ray


def test_a_whole_run_may_have_a_teacher_with_bad_rows(run_small, small, tmp_path):
    """Rows that it cannot answer are no rows of its score either, and the report says so."""
    (tmp_path / "sick.py").write_text(PREDICTORS)
    data = small(seeds=2, labels={"on_bad_rows": "skip"})
    data["teacher"] = {"predictor": {"kind": "custom", "target": "sick.py:Sick"}}
    record = run_small(data)
    assert any("was not finite" in warning for warning in record.data["warnings"])
    assert record.data["verdict"]


def test_a_codec_of_more_classes_than_there_are_is_refused_before_a_teacher_is_trained(
    run_small, small, tmp_path
):
    with pytest.raises(StoreError, match="10"):
        run_small(small(seeds=1, labels={"codec": {"kind": "top_k", "k": 10}}))
    assert not (tmp_path / "run" / "teacher").exists()
