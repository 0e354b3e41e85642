"""A task that is asked once per token, through the whole pipeline: restoring a made-up text."""

import json
import random

import numpy as np
import pytest
import torch
import yaml

from understudy import build
from understudy import recipe as recipes
from understudy.cli.main import run as command
from understudy.contracts import Ragged
from understudy.deployed import Deployed, word_answers
from understudy.errors import DataError, RecipeError
from understudy.folders import read_json
from understudy.labels.store import LabelStore
from understudy.pipeline import run

NAMES, REST = ["Anna", "Bert", "Carl", "Dora"], ["sees", "the", "old", "house", "and", "a", "dog"]
SMALL = {
    "task": {"kind": "token_classification"},
    "data": {
        "source": {"kind": "restoring", "path": "p.txt", "words": 24, "least": 5},
        "test": 0.3,
        "tokenizer": {"size": 120, "max_length": 18},
        "views": [{"kind": "token_dropout", "share": 0.1}],
    },
    "teacher": {
        "model": {"kind": "text_cnn", "dim": 16, "filters": 16, "kernels": [3]},
        "training": {"epochs": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.01}},
    },
    "student": {"model": {"kind": "text_bilstm", "dim": 12, "hidden": 12}},
    "labels": {"codec": {"kind": "top_p", "p": 0.95, "k": 2}, "views": 2},
    "steps": [
        {
            "objective": [
                {"kind": "hard_label", "weight": 0.3},
                {"kind": "soft_target", "weight": 0.7, "temperature": 2.0},
            ],
            "training": {"epochs": 8, "batch_size": 16, "optimizer": {"learning_rate": 0.03}},
        }
    ],
    "evaluate": {"draws": 200, "latency_seconds": 0.01},
    "seeds": 1,
}


def paragraphs(count=240, seed=0):
    """Sentences that begin with a capital and end with a stop; names have one anywhere."""
    draw = random.Random(seed)
    for _ in range(count):
        lines = []
        for _ in range(draw.randint(1, 4)):
            words = [draw.choice(NAMES if draw.random() < 0.3 else REST) for _ in range(5)]
            words[0], words[-1] = words[0].capitalize(), draw.choice(["now", "today"])
            lines.append(" ".join(words) + " .")
        yield " ".join(lines)


def recipe_of(folder, changes=None):
    data = json.loads(json.dumps(SMALL))
    for path, value in (changes or {}).items():
        *above, last = path.split(".")
        here = data
        for part in above:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        here[last] = value
    return recipes.loads(yaml.safe_dump(data), name="t.yaml", folder=folder)


@pytest.fixture
def folder(tmp_path):
    text = "\n".join(["= A Heading =", "", *paragraphs()])
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_text_goes_from_a_file_of_paragraphs_to_restored_words(folder, capsys):
    recipe, place = recipe_of(folder)
    record = run(recipe, place=place, out=folder / "run")
    models = record.data["models"]
    assert next(iter(models["student"]["scores"])) == "macro_f1" == record.data["primary"]["name"]
    assert models["teacher"]["scores"]["macro_f1"]["value"] > 0.6  # one class alone: below 0.3
    assert models["student"]["scores"]["macro_f1"]["value"] > 0.5
    assert models["student_int8"]["scores"]["accuracy"]["value"] > 0.7
    assert any("words" in note and "neither learned nor scored" in note
               for note in record.data["warnings"])  # fmt: skip
    # Intervals and verdict are over texts.
    assert record.data["rows"]["test"] == 72 == record.data["verdict"]["rows"]
    classes = record.data["task"]["classes"]
    assert {row["name"] for row in record.data["slices"]} <= set(classes)
    assert len(record.data["confusion"]["student"]) == len(classes)

    store = LabelStore(folder / "run" / "labels")
    ids = torch.from_numpy(store.ids()[:7])
    told = store.read(ids, torch.full((7,), 2))["logits"]
    assert isinstance(told, Ragged)
    assert told.values.classes == len(classes)
    assert int(told.lengths.max()) <= 18
    assert int(told.lengths.sum()) == len(told.values)

    path = str(folder / "run")
    text = "the old dog sees anna now bert sees the house today"
    for more in ([], ["--int8"]):
        assert command(["predict", path, "--text", text, "--json", *more]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert [word["word"] for word in answer["words"]] == text.split()
        assert answer["text"].lower().replace(".", "").replace(",", "") == text
        assert "Anna" in answer["text"]
    (folder / "q.txt").write_text(f"{text}\nanna sees {'a ' * 40}", encoding="utf-8")
    assert command(["predict", path, str(folder / "q.txt")]) == 0
    assert "Anna" in capsys.readouterr().out
    session = Deployed.open(record.data["files"]["onnx"])
    (long,) = word_answers(["anna sees " + "a " * 40], session)
    assert long["words"][0]["class"] is not None
    assert long["words"][-1] == {"word": "a", "class": None, "probability": None}
    with pytest.raises(DataError, match="the first is number 2"):
        word_answers(["a", " "], session)
    assert (folder / "run" / "report.html").stat().st_size > 10_000

    found = run(recipe, place=place, out=folder / "run")
    assert found.data["created"] == record.data["created"], "a finished run is not done again"


def test_words_that_nobody_has_labelled_are_learned_from_a_teacher_and_not_judged(folder):
    few = {"data.rows": 40, "data.views": [], "labels": {}, "teacher.training.epochs": 1}
    recipe, place = recipe_of(folder, few)
    run(recipe, place=place, out=folder / "taught", until="labels")
    classes = read_json(folder / "taught" / "data" / "data.json")["task"]["classes"]
    plain = [" ".join(text.split()) for text in paragraphs(60, seed=3)]
    (folder / "plain.jsonl").write_text("\n".join(json.dumps({"words": one}) for one in plain))
    source = {"kind": "text", "path": "plain.jsonl", "text": "words"}
    changes = {
        "data.source": source | {"classes": classes},
        "data.tokenizer": {"file": "taught/data/tokenizer.json", "max_length": 18},
        "data.views": [],
        "labels": {},
        "teacher": {
            "model": SMALL["teacher"]["model"],
            "weights": "taught/teacher/weights.safetensors",
        },
        "steps.0.objective": [{"kind": "soft_target", "temperature": 2.0}],
        "steps.0.training.epochs": 2,
        "export": {"int8": False},
    }
    recipe, place = recipe_of(folder, changes)
    data = run(recipe, place=place, out=folder / "unlabelled").data
    assert data["rows"]["labelled"] == 0
    assert data["rows"]["test"] == 18
    assert set(data["models"]) == {"teacher", "student"}
    assert data["models"]["teacher"]["scores"] == {}
    found = data["models"]["student"]["scores"]
    assert set(found) == {"agreement", "divergence"}
    alike = found["agreement"]
    assert 0 <= alike["low"] <= alike["value"] <= alike["high"] <= 1
    sentence = data["verdict"]["sentence"]
    assert "no claim about how good the student is" in sentence
    assert f"(agreement) {100 * alike['value']:.1f}% of 18 test rows" in sentence
    assert data["verdict"]["against_teacher"] is None
    assert data["confusion"] is None
    assert "NaN" not in (folder / "unlabelled" / "run.json").read_text()

    recipe, place = recipe_of(folder, changes | {"data.source": source})
    with pytest.raises(DataError, match=r"must have labels or classes .* it names no `classes`"):
        run(recipe, place=place, out=folder / "nameless")


def test_few_labels_hide_words_from_student_and_control_but_not_positions(folder):
    recipe, place = recipe_of(
        folder,
        {"data.labelled": 10, "data.views": [], "labels": {"codec": {"kind": "int8"}},
         "teacher.training.epochs": 1, "student.model": {"kind": "text_cnn", "filters": 4}},
    )  # fmt: skip
    run(recipe, place=place, out=folder / "run", until="labels")
    facts = read_json(folder / "run" / "data" / "data.json")
    assert facts["counts"]["labelled"] == 10
    assert facts["facts"]["each_token"] is True
    store = LabelStore(folder / "run" / "labels")
    assert len(store) == facts["counts"]["train"], "the teacher is asked for unlabelled rows too"
    read = store.read(torch.from_numpy(store.ids()))["logits"]
    assert isinstance(read, Ragged)
    assert read.values.shape == (int(read.lengths.sum()), facts["facts"]["width"])
    assert np.isfinite(read.values.numpy()).all()


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"data.views": [{"kind": "token_crop"}]}, "`token_crop` moves tokens"),
        ({"data.views": [{"kind": "token_dropout", "by": "delete"}]}, "moves tokens"),
        ({"data.views": [{"kind": "mixup"}]}, "`mixup` mixes rows"),
        ({"data.views": [{"kind": "cutmix"}]}, "`cutmix` mixes rows"),
        ({"teacher": {"onnx": "t.onnx"}}, "must be a PyTorch `model`"),
        ({"student.model": {"kind": "text_static"}}, "`text_static` answers once per row"),
        ({"student.reused_head": {}}, "`reused_head` is for one answer per row"),
        ({"steps.0.objective": [{"kind": "hint", "layers": "auto"}]}, "`hint` is not made for"),
        (
            {"transfer": {"source": {"kind": "digits"}, "labelled": 20}},
            "`transfer` is for one answer per row",
        ),
    ],
)
def test_what_has_no_form_per_token_is_refused_before_anything_runs(folder, changes, law):
    (folder / "t.onnx").write_bytes(b"")
    recipe, place = recipe_of(folder, changes)
    with pytest.raises(RecipeError) as error:
        build.check(recipe, place)
    assert law in str(error.value)


def test_a_tokenizer_that_leaves_no_word_is_refused(folder):
    (folder / "p.txt").write_text("\n".join(["… — “"] * 3), encoding="utf-8")
    recipe, place = recipe_of(folder)
    with pytest.raises(DataError, match="must hold paragraphs of text"):
        run(recipe, place=place, out=folder / "run", until="labels")
    assert command(["run", "nowhere.yaml"]) == 2
