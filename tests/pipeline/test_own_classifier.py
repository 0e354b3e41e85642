"""A fine-tuned classifier (random weights) as the teacher of whole runs, and what is refused."""

import csv
import json
import shutil

import pytest
import torch
import yaml

pytest.importorskip("transformers")

from pipeline.classifier_made import as_on_the_hub, make_classifier, own_logits
from pipeline.test_texts import GOOD, reviews
from understudy import recipe as recipes
from understudy.cli.main import run as command
from understudy.errors import ModelError
from understudy.folders import read_json
from understudy.labels.store import LabelStore
from understudy.pipeline import run
from understudy.pipeline.model_marks import model_marks
from understudy.recipe import Entry, Source

TEXTS, MOODS = map(list, zip(*reviews(80), strict=True))
COMMITS = ["a" * 40, "b" * 40]
BASE = {
    "data": {
        "source": {"kind": "text", "path": "t.csv", "text": "text", "target": "mood"},
        "tokenizer": {"size": 60},
        "test": 0.3,
        "validation": 0.2,
    },
    "teacher": {"model": {"kind": "hf_classifier", "folder": "./tuned"}},
    "student": {"model": {"kind": "text_static", "dim": 4}},
    "steps": [{"training": {"epochs": 1, "batch_size": 16}}],
    "evaluate": {"draws": 200, "latency_seconds": 0.005},
    "export": {"int8": False},
    "seeds": 1,
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("own") / "m", TEXTS, labels=["POS", "NEG"])


@pytest.fixture
def home(tmp_path, tuned):
    shutil.copytree(tuned, tmp_path / "tuned")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "mood"], *zip(TEXTS, MOODS, strict=True)])
    return tmp_path


def changed(changes):
    data = json.loads(json.dumps(BASE))
    for path, value in changes.items():
        *above, last = path.split(".")
        here = data
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
    return data


def go(home, changes=None, **options):
    text = yaml.safe_dump(changed(changes or {}))
    recipe, place = recipes.loads(text, name="t.yaml", folder=home)
    return run(recipe, place=place, out=home / "run", **options)


def stored(home):
    """The texts of a run's training rows, and what the teacher said of them."""
    store = LabelStore(home / "run" / "labels")
    ids = torch.from_numpy(store.ids().copy())
    return [TEXTS[at] for at in ids.tolist()], store.read(ids)["logits"]


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_stored_is_what_transformers_says_with_either_tokenizer(home, shared):
    changes = {"labels.codec": {"kind": "dense", "precision": "float32"}}
    record = go(home, changes | ({"data.tokenizer": "tuned"} if shared else {}))
    texts, told = stored(home)
    # The data's classes are neg and pos, the model's POS and NEG.
    torch.testing.assert_close(told, own_logits(home / "tuned", texts)[:, [1, 0]],
                               atol=1e-4, rtol=1e-4)  # fmt: skip
    said = own_logits(home / "tuned", TEXTS)[:, [1, 0]].argmax(dim=1)
    right = [said[at] == (MOODS[at] == "pos") for at in range(len(TEXTS))]
    test = _positions(home)
    score = record.data["models"]["teacher"]["scores"]["accuracy"]["value"]
    assert score == pytest.approx(sum(bool(right[at]) for at in test) / len(test))
    assert record.data["models"]["teacher"]["latency_ms"]["batch1"] > 0
    assert (home / "run" / "export" / "teacher.onnx").is_file()
    assert record.data["models"]["teacher"]["parameters"] > 1000


def _positions(home):
    from safetensors.numpy import load_file

    return load_file(home / "run" / "data" / "splits.safetensors")["test"].tolist()


def test_answers_without_names_are_taken_in_order_and_that_is_said(home, capsys):
    make_classifier(home / "tuned", TEXTS, labels=["LABEL_0", "LABEL_1"])
    go(home, until="labels")
    told = read_json(home / "run" / "teacher" / "stage.json")["summary"]["notes"]
    assert "LABEL_0 is neg, LABEL_1 is pos" in told[0]
    texts, answers = stored(home)
    assert answers.argmax(dim=1).tolist() == own_logits(home / "tuned", texts).argmax(1).tolist()


def test_several_are_an_ensemble_and_a_student_is_cut_from_one(home):
    member = {"model": {"kind": "hf_classifier", "folder": "./tuned"}}
    make_classifier(home / "other", TEXTS, labels=["neg", "pos"])
    second = {"model": {"kind": "hf_classifier", "folder": "./other"}}
    both = {"teacher": {"ensemble": [member, second]}, "data.tokenizer": "tuned"}
    go(home, both, until="labels")
    texts, told = stored(home)
    parts = [own_logits(home / "tuned", texts)[:, [1, 0]], own_logits(home / "other", texts)]
    mean = torch.stack([part.softmax(dim=1) for part in parts]).mean(dim=0)
    torch.testing.assert_close(told.softmax(dim=1), mean, atol=2e-3, rtol=2e-3)
    shutil.rmtree(home / "run")
    cut = {"data.tokenizer": "tuned", "student": {"from_teacher": {"kind": "depth", "keep": 1}}}
    go(home, cut, until="labels")


def test_pairs_are_read_as_in_its_training(home):
    with (home / "t.csv").open("w", newline="") as file:
        rows = zip(TEXTS, reversed(TEXTS), MOODS, strict=True)
        csv.writer(file).writerows([["text", "other", "mood"], *rows])
    go(home, {"data.source.pair": "other"}, until="labels")
    store = LabelStore(home / "run" / "labels")
    ids = torch.from_numpy(store.ids().copy())
    sides = [[one[at] for at in ids.tolist()] for one in (TEXTS, TEXTS[::-1])]
    told = own_logits(home / "tuned", *sides)
    torch.testing.assert_close(store.read(ids)["logits"], told[:, [1, 0]], atol=2e-3, rtol=2e-3)


def test_another_revision_of_a_name_is_another_model(home, tuned, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
    as_on_the_hub(tuned, home / "hf", "some/tuned", COMMITS[0])
    entry = Entry.model_validate({"kind": "hf_classifier", "folder": "some/tuned"})
    assert model_marks(entry, Source(folder=home)) == {"commit": COMMITS[0]}
    named = {"teacher.model.folder": "some/tuned", "data.tokenizer": "some/tuned"}
    go(home, named, until="labels")
    _, before = stored(home)
    first = read_json(home / "run" / "teacher" / "stage.json")["fingerprint"]
    go(home, named, until="labels")
    assert read_json(home / "run" / "teacher" / "stage.json")["fingerprint"] == first
    make_classifier(home / "newer", TEXTS, labels=["neg", "pos"])
    as_on_the_hub(home / "newer", home / "hf", "some/tuned", COMMITS[1])
    go(home, named, until="labels")
    assert read_json(home / "run" / "teacher" / "stage.json")["fingerprint"] != first
    assert not torch.equal(stored(home)[1], before)
    # A student by a name, and a sentence encoder that tells the classes, are noticed likewise.
    for kind in ("hf_encoder", "hf_causal", "sentence_encoder"):
        entry = Entry.model_validate({"kind": kind, "folder": "some/tuned"})
        assert model_marks(entry, Source(folder=home)) == {"commit": COMMITS[1]}
    student = {"student.model": {"kind": "hf_encoder", "folder": "some/tuned"}}
    go(home, named | student, until="labels")
    marks = read_json(home / "run" / "student" / "stage.json")["fingerprint"]
    as_on_the_hub(tuned, home / "hf", "some/tuned", "c" * 40)
    go(home, named | student, until="labels")
    assert read_json(home / "run" / "student" / "stage.json")["fingerprint"] != marks


MODEL = {"kind": "hf_classifier", "folder": "./tuned"}
REFUSED = {
    "other names": ({"labels": ["up", "down"]}, {}, "tells up, down (2), and the data has neg"),
    "more classes": ({"labels": ["neg", "pos", "odd"]}, {}, "(3), and the data has neg, pos (2)"),
    "several at once": ({"labels": ["neg", "pos"], "problem_type": "multi_label_classification"},
                        {}, "`problem_type` of"),
    "another head": ({"labels": ["neg", "pos"], "each_token": True}, {},
                     "is a BertForTokenClassification"),
    "too long": ({"labels": ["neg", "pos"]},
                 {"data.tokenizer": {"file": "tuned", "max_length": 60}}, "48 positions"),
    "other tokens in an ensemble": ({"labels": ["neg", "pos"]},
                                    {"teacher": {"ensemble": [{"model": MODEL}] * 2}},
                                    "must read its own tokens"),
    "views": ({"labels": ["neg", "pos"]}, {"data.views": [{"kind": "token_dropout"}]},
              "random `data.views` change"),
    "training": ({"labels": ["neg", "pos"]}, {"teacher.training": {"epochs": 1}},
                 "taken as it is in its folder"),
    "no tokenizer": ({"labels": ["neg", "pos"], "gone": "tokenizer.json"}, {},
                     "has no `tokenizer.json`"),
    "no weights": ({"labels": ["neg", "pos"], "gone": "model.safetensors"}, {}, "cannot be loaded"),
    "no configuration": ({"labels": ["neg", "pos"], "gone": "config.json"}, {}, "`config.json`"),
    "a name offline": ({"labels": ["neg", "pos"]},
                       {"teacher.model.folder": "nobody/no-such"}, "nobody/no-such"),
    "a student": ({"labels": ["neg", "pos"]}, {"student.model": MODEL}, "is a teacher, as it is"),
    "another task": ({"labels": ["neg", "pos"]},
                     {"task": {"kind": "regression"}}, "tells classes, but the task"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_message(home, capsys, monkeypatch, case):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made, changes, law = REFUSED[case]
    gone = made.get("gone")
    make_classifier(home / "tuned", TEXTS, **{k: v for k, v in made.items() if k != "gone"})
    if gone:
        (home / "tuned" / gone).unlink()
    (home / "t.yaml").write_text(yaml.safe_dump(changed(changes)))
    capsys.readouterr()
    code = command(["run", str(home / "t.yaml"), "--out", str(home / "run"), "--quiet"])
    told = capsys.readouterr().err
    assert code == 2, told
    assert law in told
    assert "Traceback" not in told
    assert told.count("error:") == 1
    assert len(told.splitlines()) <= 4


def test_a_class_for_every_word_needs_its_tokens_and_its_tags(home):
    make_classifier(home / "tags", TEXTS, labels=["GOOD", "OTHER"], each_token=True)
    tags = {word: "GOOD" if word in GOOD else "OTHER" for text in TEXTS for word in text.split()}
    rows = [
        {"words": text.split(), "tags": [tags[word] for word in text.split()]} for text in TEXTS
    ]
    (home / "w.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {
        "task": {"kind": "token_classification"},
        "data.source": {"kind": "text", "path": "w.jsonl", "text": "words", "target": "tags"},
        "teacher.model.folder": "./tags",
        "student.model": {"kind": "text_cnn", "dim": 4, "filters": 4, "kernels": [3]},
    }
    with pytest.raises(ModelError, match="must read its own tokens"):
        go(home, changes, until="labels")
    record = go(home, changes | {"data.tokenizer": "tags"})
    assert record.data["models"]["teacher"]["scores"]["macro_f1"]["value"] >= 0
    assert (home / "run" / "export" / "teacher.onnx").is_file()
