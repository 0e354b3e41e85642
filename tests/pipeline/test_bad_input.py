"""What a user can get wrong: the message, exit code 2, and nothing already written is lost."""

import numpy as np
import pytest
import torch
import yaml

from understudy import recipe as recipes
from understudy.cli.main import run as command
from understudy.errors import (
    DataError,
    ModelError,
    RecipeError,
    RunError,
    StoreError,
    TrainingError,
)
from understudy.pipeline import run

NETWORKS = """
from collections import OrderedDict
import torch
from torch import nn

class Wrapped(nn.Module):
    def __init__(self, form="tensor", classes=10):
        super().__init__()
        self.form, self.net = form, nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    def forward(self, rows):
        logits = self.net(rows)
        if self.form == "tuple":
            return logits, rows
        if self.form == "dict":
            return {"logits": logits, "hidden": rows}
        if self.form == "object":
            from types import SimpleNamespace
            return SimpleNamespace(logits=logits)
        if self.form == "text":
            return "seven"
        if self.form == "nan":
            return logits * float("nan")
        if self.form == "constant":
            return logits * 0 + 1
        return logits

def probabilities():
    return lambda rows: torch.full((len(rows), 10), 0.1).numpy()
"""


@pytest.fixture
def networks(tmp_path):
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS)
    return "networks.py"


def custom(networks, name="Wrapped", **arguments):
    return {"kind": "custom", "target": f"{networks}:{name}", "arguments": arguments}


@pytest.mark.parametrize("form", ["tuple", "dict", "object"])
def test_a_network_may_answer_with_a_tuple_a_dict_or_an_object(small, run_small, networks, form):
    data = small(seeds=1, student={"model": custom(networks, form=form)})
    data["teacher"] = {"model": custom(networks, form=form), "training": {"epochs": 1}}
    assert run_small(data).summary()["student"]["parameters"] == 650


def test_an_answer_of_text_is_refused(small, run_small, networks):
    with pytest.raises(ModelError, match="must return a tensor"):
        run_small(small(student={"model": custom(networks, form="text")}))


def test_other_class_counts_are_refused_for_teacher_and_student(small, run_small, networks):
    wrong = custom(networks, classes=7)
    with pytest.raises(ModelError, match="10 numbers per row"):
        run_small(small(student={"model": wrong}))
    data = small()
    data["teacher"] = {"model": wrong, "training": {"epochs": 1}}
    with pytest.raises(ModelError, match="10 numbers per row"):
        run_small(data, folder="second")


@pytest.mark.parametrize(
    ("form", "law"), [("nan", "must be finite"), ("constant", "teach nothing")]
)
def test_a_broken_teacher_is_refused_before_it_teaches(small, run_small, networks, form, law):
    data = small()
    data["teacher"] = {"model": custom(networks, form=form)}
    with pytest.raises(ModelError, match=law):
        run_small(data)


def test_probabilities_that_are_said_to_be_logits_are_refused(small, run_small, networks):
    data = small()
    data["teacher"] = {"predictor": custom(networks, "probabilities")}
    with pytest.raises(ModelError, match="answers: probabilities"):
        run_small(data)


def test_a_loss_that_becomes_nan_stops_with_step_and_term(small, run_small, tmp_path):
    data = small(seeds=1)
    training = {"epochs": 3, "optimizer": {"kind": "sgd", "learning_rate": 1e30}}
    data["steps"][0] = {**data["steps"][0], "training": training}
    with pytest.raises(TrainingError, match=r"epoch \d+, step \d+.*`\w+`"):
        run_small(data)
    assert (tmp_path / "run/teacher/weights.safetensors").is_file()


def test_foreign_weights_that_do_not_fit_are_listed(small, run_small, networks, tmp_path):
    torch.save({"net.1.weight": torch.zeros(10, 3), "other": torch.zeros(1)}, tmp_path / "w.pt")
    data = small()
    data["teacher"] = {"model": custom(networks), "weights": "w.pt"}
    with pytest.raises(ModelError) as error:
        run_small(data)
    text = str(error.value)
    assert "missing: net.1.bias" in text
    assert "unexpected: other" in text
    assert "net.1.weight (file [10, 3], model [10, 64])" in text


def test_a_damaged_label_store_is_named_and_the_rest_is_kept(copy_of, small):
    shard = copy_of / "labels" / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    data = small()
    data["steps"][0] = {**data["steps"][0], "training": {"epochs": 4}}
    recipe, place = recipes.loads(yaml.safe_dump(data), name="small.yaml")
    with pytest.raises(StoreError, match="damaged"):
        run(recipe, place=place, out=copy_of)
    assert (copy_of / "run.json").is_file()
    assert (copy_of / "export" / "student.onnx").is_file()


def test_a_vanished_shard_is_made_again(copy_of, small):
    (copy_of / "labels" / "shard-00000.safetensors").unlink()
    data = small()
    data["steps"][0] = {**data["steps"][0], "training": {"epochs": 4}}
    recipe, place = recipes.loads(yaml.safe_dump(data), name="small.yaml")
    assert run(recipe, place=place, out=copy_of).summary()["student"]["parameters"] > 0


def test_a_second_process_is_told_who_holds_the_folder(copy_of):
    from understudy.folders import Lock

    recipe, place = recipes.load(copy_of / "recipe.yaml")
    with Lock(copy_of), pytest.raises(RunError, match=r"held by process \d+"):
        run(recipe, place=place, out=copy_of)


def test_the_wrong_task_for_the_rows_is_named(small, run_small):
    with pytest.raises(DataError, match="regression"):
        run_small(small(data={"source": {"kind": "diabetes"}, "rows": None}))


def test_rows_with_nan_are_counted_with_examples(small, run_small, tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 64)).astype(np.float32)
    rows[7, 3] = np.nan
    np.savez(tmp_path / "rows.npz", x=rows, y=np.arange(60) % 3)
    source = {"kind": "arrays", "inputs": "rows.npz:x", "labels": "rows.npz:y"}
    data = small()
    data["data"] = {"source": source, "test": 0.3}
    with pytest.raises(DataError, match="7"):
        run_small(data)


def test_rows_that_changed_under_a_run_are_refused(small, run_small, tmp_path):
    draw = np.random.default_rng(0)
    rows, labels = draw.normal(size=(120, 64)).astype(np.float32), np.arange(120) % 3
    np.savez(tmp_path / "rows.npz", x=rows, y=labels)
    source = {"kind": "arrays", "inputs": "rows.npz:x", "labels": "rows.npz:y"}
    data = small(seeds=1)
    data["data"] = {"source": source, "test": 0.3}
    run_small(data, until="labels")
    np.savez(tmp_path / "rows.npz", x=rows + 1, y=labels)
    run_small(data, until="labels")  # another file: the stages are made again, nothing is stale


def write(path, text):
    path.write_text(text)
    return str(path)


BROKEN = """
task: {kind: classification}
data: {source: {kind: digitz}, test: 2.5, validaton: 0.1}
teacher:
  model: {kind: convnet, filtres: [8]}
  training: {epochs: 0}
student: {model: {kind: custom, target: "nowhere.py:Net"}}
steps:
  - objective: [{kind: soft_target, temperature: -4}]
    training: {trainer: {acelerator: cpu}}
"""


def test_every_mistake_of_a_recipe_is_told_at_once_with_exit_code_2(tmp_path, capsys):
    assert command(["run", write(tmp_path / "r.yaml", BROKEN), "--out", str(tmp_path / "o")]) == 2
    told = capsys.readouterr().err
    for part in ("line 3", "validaton", "did you mean `validation`", "line 6", "epochs"):
        assert part in told
    assert "Traceback" not in told
    assert not (tmp_path / "o").exists()


def test_mistakes_that_only_build_can_see_join_one_list(small):
    data = small()
    data["data"]["source"] = {"kind": "digitz"}
    data["student"] = {"model": {"kind": "custom", "target": "nowhere.py:Net"}}
    data["teacher"]["model"]["hiden"] = [3]
    training = {"trainer": {"acelerator": "cpu", "max_epochs": 3}}
    objective = [{"kind": "soft_target", "temperature": -4}, {"kind": "soft_traget"}]
    data["steps"][0] = {"objective": objective, "training": training}
    from understudy import build

    recipe, place = recipes.loads(yaml.safe_dump(data), name="r.yaml")
    with pytest.raises(RecipeError) as error:
        build.check(recipe, place)
    text = str(error.value)
    for part in (
        "did you mean `digits`",
        "nowhere.py",
        "did you mean `hidden`",
        "`temperature > 0` must hold",
        "did you mean `soft_target`",
        "did you mean `accelerator`",
        "`max_epochs` is set by the recipe itself",
    ):
        assert part in text
    assert "line " in text
