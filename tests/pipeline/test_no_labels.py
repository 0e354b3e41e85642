"""Runs without hard labels: a zero-shot teacher, no control, and a verdict that claims no more."""

import json

import numpy as np
import pytest
import yaml

from pipeline.encoder_made import make_encoder
from pipeline.test_texts import BAD, GOOD, SMALL, recipe_of, reviews, write
from understudy import recipe as recipes
from understudy.cli.main import run as command
from understudy.deployed import Deployed, text_rows
from understudy.errors import DataError, RecipeError
from understudy.folders import read_json
from understudy.pipeline import run

pytest.importorskip("transformers")

CLASSES = {"neg": [" ".join(BAD), *BAD], "pos": [" ".join(GOOD), *GOOD]}
ZERO_SHOT = {"encoder": "encoder", "classes": CLASSES, "template": "a film {}"}
STUDENT = {"student.model": {"kind": "text_static", "dim": 8}, "export.int8": False}
NONE = {**STUDENT, "teacher": {"zero_shot": ZERO_SHOT}, "data.labelled": 0}


@pytest.fixture
def start(tmp_path):
    """Run the small recipe with changes, in a folder with reviews and an encoder."""
    lines = list(reviews(160))
    write(tmp_path, lines)
    make_encoder(tmp_path / "encoder", [text for text, _ in lines], size=100)

    def go(changes=None, **options):
        text = recipe_of(changes)
        recipe, place = recipes.loads(text, name="t.yaml", folder=tmp_path)
        (tmp_path / "t.yaml").write_text(text)
        return run(recipe, place=place, out=tmp_path / "run", **options)

    return go


def test_without_any_training_label_the_verdict_compares_student_and_teacher(start, tmp_path):
    long = {"epochs": 15, "batch_size": 16, "optimizer": {"learning_rate": 0.03}}
    changes = {**NONE, "seeds": 2, "steps.0.training": long}
    data = start(changes).data
    assert data["rows"]["labelled"] == 0
    assert set(data["models"]) == {"teacher", "student"}
    # Descriptions alone: half of the texts are positive.
    assert data["models"]["teacher"]["scores"]["accuracy"]["value"] > 0.6
    assert data["models"]["student"]["scores"]["agreement"]["value"] > 0.6  # chance is 0.5
    assert data["control"] == {"trained": False, "why_not": data["warnings"][0].split(". ")[0]}
    verdict = data["verdict"]
    assert verdict["word"] == "UNDECIDED"
    assert "no control to compare with" in verdict["sentence"]
    assert "labelled test rows the student has accuracy" in verdict["sentence"]
    beside = verdict["against_teacher"]
    values = [data["models"][n]["scores"]["accuracy"]["value"] for n in ("student", "teacher")]
    assert beside["effect"] == pytest.approx(values[0] - values[1], abs=1e-9)
    assert beside["low"] <= beside["effect"] <= beside["high"]
    assert not (tmp_path / "run" / "distil" / "control-0").exists()
    assert all(p["validation"] is None for c in data["curves"] for p in c["points"])
    notes = " ".join(data["warnings"])
    assert "zero-shot" in notes
    assert "Scale" in notes
    assert "no control" in (tmp_path / "run" / "report.html").read_text()
    store = read_json(tmp_path / "run" / "labels" / "manifest.json")
    assert store["made"]["backends"] == [["predictor", None]], "its tokens are its own"
    assert data["models"]["teacher"]["parameters"] > 0
    assert data["models"]["teacher"]["latency_ms"]["batch1"] > 0
    assert start(changes).data["created"] == data["created"]


def test_without_any_label_at_all_nothing_but_likeness_is_said(start, tmp_path, capsys):
    write(tmp_path, [(text,) for text, _ in reviews(120)], head=("review",))
    changes = {**NONE, "data.source": {"kind": "text", "path": "t.csv", "text": "review"}}
    del changes["data.labelled"]
    data = start(changes).data
    assert data["task"]["classes"] == ["neg", "pos"]
    assert data["primary"]["name"] == "agreement"
    assert set(data["models"]["student"]["scores"]) == {"agreement", "divergence"}
    assert data["models"]["teacher"]["scores"] == {}
    assert data["confusion"] is None
    assert data["verdict"]["against_teacher"] is None
    assert "no claim about how good the student is" in data["verdict"]["sentence"]
    assert data["gallery"]
    assert all(row["label"] is None for row in data["gallery"])
    report = (tmp_path / "run" / "report.html").read_text()
    assert "no claim about how good" in report
    session = Deployed.open(data["files"]["onnx"])
    told = session.predict(text_rows([" ".join(GOOD), " ".join(BAD)], session))
    assert told.argmax(axis=1).tolist() == [1, 0]
    assert command(["run", str(tmp_path / "t.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert "agreement" in capsys.readouterr().out


def test_the_runs_own_tokens_are_used_where_they_are_the_encoders(start, tmp_path):
    views = [{"kind": "token_dropout", "share": 0.1}]
    changes = {**NONE, "data.tokenizer": "encoder", "data.views": views, "labels": {"views": 2}}
    data = start(changes).data
    store = read_json(tmp_path / "run" / "labels" / "manifest.json")
    assert store["made"]["backends"] != [["predictor", None]]
    assert data["models"]["teacher"]["latency_ms"]["batch1"] > 0
    assert data["models"]["teacher"]["scores"]["accuracy"]["value"] > 0.6


def test_a_zero_shot_teacher_is_a_member_like_any_other_and_few_labels_leave_a_control(start):
    member = {"zero_shot": ZERO_SHOT | {"scale": 20.0, "prior": {"neg": 0.4, "pos": 0.6}}}
    other = {"zero_shot": ZERO_SHOT | {"template": "the plot is {}"}}
    changes = {**STUDENT, "teacher": {"ensemble": [member, other]}, "data.labelled": 20}
    data = start(changes).data
    assert data["rows"]["labelled"] == 20
    assert data["control"]["trained"]
    assert {"teacher", "student", "control"} <= set(data["models"])
    assert any("Scale 20 (as told)" in note for note in data["warnings"])


def test_unlabelled_texts_of_other_files_are_learned_from_and_test_rows_never(start, tmp_path):
    labelled = list(reviews(60, seed=3))
    write(tmp_path, labelled, "few.csv")
    test = list(reviews(40, seed=4))
    write(tmp_path, test, "test.csv")
    # More than a tenth of them are test rows: unlabelled ones are dropped all the same.
    write(tmp_path, [(text,) for text, _ in [*reviews(90, seed=5), *test]], "more.csv", ("review",))
    lines = [json.dumps({"body": text, "mood": "pos"}) for text, _ in reviews(30, seed=6)]
    (tmp_path / "more.jsonl").write_text("\n".join(lines))
    source = SMALL["data"]["source"] | {"path": "few.csv", "test_path": "test.csv"}
    other = {"kind": "text", "path": "more.jsonl", "text": "body", "target": "mood",
             "classes": ["neg", "pos"]}  # fmt: skip
    changes = {
        **STUDENT,
        "data.source": source,
        "data.test": "given",
        "data.unlabelled": ["more.csv", other],
        "data.labelled": 20,
        "teacher": {"zero_shot": ZERO_SHOT},
    }
    data = start(changes).data
    assert data["rows"]["train"] + data["rows"]["validation"] == 60 + 90 + 30
    assert data["rows"]["labelled"] == 20
    assert any("40 training rows were left out" in note for note in data["warnings"])
    write(tmp_path, [(text,) for text, _ in reviews(20, seed=7)], "more.csv", ("review",))
    assert start(changes).data["rows"]["train"] == data["rows"]["train"] - 70


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"data.labelled": 0, "steps.0.training.choose": "validation"}, "is to see no label"),
        ({"data.labelled": 0, "steps.0.objective": [{"kind": "hard_label"}]}, "nothing to learn"),
        ({"teacher": {"zero_shot": ZERO_SHOT | {"classes": {"a": "x", "b": "y"}}}}, "a, b: use"),
        (
            {"teacher": {"zero_shot": ZERO_SHOT | {"classes": {"neg": "dull", "pos": "dull"}}}},
            "one direction",
        ),
    ],
)
def test_what_needs_labels_or_other_classes_is_refused(start, changes, law):
    with pytest.raises(Exception, match=law) as error:
        start({**STUDENT, "teacher": {"zero_shot": ZERO_SHOT}} | changes)
    assert type(error.value).__name__ in ("DataError", "ModelError")


def test_a_teacher_cannot_be_trained_on_no_labels(start, tmp_path):
    write(tmp_path, [(text, "") for text, _ in reviews(60)])
    with pytest.raises(DataError, match="learns from hard labels, but no training row has one"):
        start({"data.source.classes": ["neg", "pos"]})


@pytest.mark.parametrize(
    ("teacher", "law"),
    [
        ({"classes": {"neg": "dull"}}, "`classes` must be two or more"),
        ({"classes": {"neg": [], "pos": "x"}}, "`neg` has an empty one"),
        ({"template": "a film"}, "`template` must hold"),
        ({"prior": {"neg": 0.5, "pos": 0.2}}, "must sum to 1"),
        ({"prior": {"neg": 0.5, "bad": 0.5}}, "`prior` must give a share for each"),
        ({"encoder": "./none"}, "this folder must exist"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_a_wrong_section_is_told_with_its_line(tmp_path, capsys, teacher, law):
    write(tmp_path, reviews(20))
    (tmp_path / "encoder").mkdir()
    text = recipe_of({"teacher": {"zero_shot": ZERO_SHOT | teacher}})
    (tmp_path / "t.yaml").write_text(text)
    assert command(["check", str(tmp_path / "t.yaml")]) == 2
    told = capsys.readouterr().err
    assert law in told
    assert "Traceback" not in told


def test_paths_of_unlabelled_rows_are_looked_for(tmp_path):
    write(tmp_path, reviews(20))
    for named, law in (("no.csv", "this file must exist"), ({"kind": "texts"}, "unknown kind")):
        text = recipe_of({"data.unlabelled": named})
        recipe, place = recipes.loads(text, folder=tmp_path)
        with pytest.raises(RecipeError, match=law):
            run(recipe, place=place, out=tmp_path / "run")
    digits = yaml.safe_dump({"data": {"unlabelled": "t.csv"}, "teacher": {"onnx": "t.csv"},
                             "student": {"model": {"kind": "mlp"}}})  # fmt: skip
    recipe, place = recipes.loads(digits, folder=tmp_path)
    with pytest.raises(RecipeError, match="write a whole source"):
        run(recipe, place=place, out=tmp_path / "run")


def test_answers_of_the_store_are_those_of_the_texts(start, tmp_path):
    """The store holds, by id, what the encoder says of the text itself."""
    from understudy.labels.store import LabelStore
    from understudy.teachers.sentence_encoder import load_sentence_encoder
    from understudy.teachers.zero_shot import TextsToLogits

    start(NONE, until="labels")
    store = LabelStore(tmp_path / "run" / "labels")
    ids = store.ids()[:7]
    texts = [text for text, _ in reviews(160)]
    encoder, tokenizer = load_sentence_encoder(tmp_path / "encoder")
    vectors = TextsToLogits(encoder, tokenizer)([texts[at] for at in ids])
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "run" / "teacher" / "weights.safetensors")
    wanted = kept["scale"] * vectors @ kept["classes"].T + kept["offsets"]
    import torch

    found = store.read(torch.from_numpy(np.array(ids)), None)["logits"]
    assert torch.allclose(found, wanted, atol=1e-2)
