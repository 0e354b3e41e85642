"""Texts through the whole pipeline: made here, so that nobody needs any data."""

import csv
import json
import random

import numpy as np
import pytest
import torch
import yaml

from understudy import build
from understudy import recipe as recipes
from understudy.cli.main import run as command
from understudy.deployed import Deployed, text_rows
from understudy.errors import DataError, ModelError, RecipeError
from understudy.folders import read_json
from understudy.models.weights import read_weights
from understudy.pipeline import run

GOOD = ["fine", "lovely", "great", "warm", "bright", "clever"]
BAD = ["dull", "poor", "weak", "cold", "slow", "awful"]
REST = ["the", "a", "film", "story", "actor", "plot", "with", "of", "and", "is"]
SMALL = {
    "data": {
        "source": {"kind": "text", "path": "t.csv", "text": "review", "target": "mood"},
        "test": 0.3,
        "tokenizer": {"size": 120},
    },
    "teacher": {
        "model": {"kind": "text_transformer", "dim": 16, "depth": 2, "heads": 2},
        "training": {"epochs": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.005}},
    },
    "student": {"model": {"kind": "text_cnn", "dim": 8, "filters": 8}},
    "steps": [{"training": {"epochs": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.01}}}],
    "evaluate": {"draws": 200, "latency_seconds": 0.01},
    "seeds": 1,
}


def reviews(count=240, seed=0):
    """Texts in which most words of feeling are of the class, and their classes."""
    draw = random.Random(seed)
    for _ in range(count):
        good = draw.random() < 0.5
        words = [draw.choice(GOOD if good else BAD)]
        for _ in range(draw.randint(3, 25)):
            own = GOOD if good == (draw.random() < 0.85) else BAD
            words.append(draw.choice(own if draw.random() < 0.3 else REST))
        draw.shuffle(words)
        yield " ".join(words), "pos" if good else "neg"


def write(folder, lines, name="t.csv", head=("review", "mood")):
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *lines])


def recipe_of(changes=None, base=SMALL):
    data = json.loads(json.dumps(base))
    for path, value in (changes or {}).items():
        *above, last = path.split(".")
        here = data
        for part in above:
            here = here.setdefault(part, {}) if isinstance(here, dict) else here[int(part)]
        here[last] = value
    return yaml.safe_dump(data)


@pytest.fixture
def start(tmp_path):
    """Run the small recipe with changes, in a folder with the reviews."""
    write(tmp_path, reviews())

    def go(changes=None, **options):
        recipe, place = recipes.loads(recipe_of(changes), name="t.yaml", folder=tmp_path)
        return run(recipe, place=place, out=tmp_path / "run", **options)

    return go


def facts(folder):
    return read_json(folder / "run" / "data" / "data.json")


def test_a_recipe_of_texts_goes_from_a_file_to_answers_for_texts(start, tmp_path, capsys):
    record = start()
    models = record.data["models"]
    assert models["teacher"]["scores"]["accuracy"]["value"] > 0.8
    assert models["student"]["scores"]["accuracy"]["value"] > 0.75  # chance is about 0.5
    shown = {row["values"]["review"] for row in record.data["gallery"]}
    assert shown <= {text for text, _ in reviews()}
    session = Deployed.open(record.data["files"]["onnx"])
    assert session.input_shape == (None,)
    answers = session.predict(text_rows(["fine lovely film great", "dull slow weak"], session))
    assert answers.argmax(axis=1).tolist() == [1, 0]
    texts = ["--text", "fine lovely film great", "--text", "dull slow weak"]
    for more in ([], ["--int8"]):
        assert command(["predict", str(tmp_path / "run"), *texts, "--json", *more]) == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["class"] for one in told] == ["pos", "neg"]
        assert told[0]["row"] == "fine lovely film great"
    for wrong in ([], ["x.txt", "--text", "a"], ["--pair", "a"]):
        assert command(["predict", str(tmp_path / "run"), *wrong]) == 2
        assert "one of the two" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    again = start()
    assert again.data["created"] == record.data["created"], "a finished run is not done again"


def test_the_tokenizer_is_trained_on_training_rows_alone(start, tmp_path):
    lines = list(reviews())
    write(tmp_path, lines)
    test = [(f"{text} zzebra", mood) for text, mood in reviews(60, seed=9)]
    write(tmp_path, test, "u.csv")
    start({"data.source.test_path": "u.csv", "data.test": "given"}, until="labels")
    content = (tmp_path / "run" / "data" / "tokenizer.json").read_text()
    assert '"film"' in content
    assert "zebra" not in content
    told = facts(tmp_path)["tokens"]
    assert told["vocabulary"] <= 120
    store = read_json(tmp_path / "run" / "labels" / "manifest.json")
    assert store["fingerprints"]["tokenizer"] == told["fingerprint"]


def test_stored_views_are_learned_from_and_another_task_of_texts_reads_the_features(
    start, tmp_path
):
    views = [{"kind": "token_dropout", "share": 0.2}, {"kind": "token_crop"}]
    write(tmp_path, [*reviews(80, seed=5), *list(reviews())[:10]], "other.csv")
    source = SMALL["data"]["source"] | {"path": "other.csv"}
    record = start(
        {
            "data.views": views,
            "labels": {"views": 2},
            "steps.0.training.epochs": 1,
            "transfer": {"source": source, "labelled": 20, "draws": 2, "test": 0.5},
        }
    )
    assert record.data["transfer"]["models"]


@pytest.mark.parametrize("kind", ["text_static", "text_bilstm", "text_transformer"])
def test_every_student_of_texts_is_distilled_and_deployed(kind, start):
    changes = {"student.model": {"kind": kind, "dim": 8}, "export.int8": False}
    changes |= {"teacher.training.epochs": 1, "steps.0.training.epochs": 1}
    if kind == "text_transformer":
        changes["student.model"] |= {"depth": 1, "heads": 2}
    record = start(changes)
    assert record.data["parity"]["student-0"]["max_difference"] < 1e-3


def test_layers_of_texts_are_compared_at_one_length(start):
    terms = [
        {"kind": "hard_label"},
        {"kind": "soft_target"},
        {"kind": "tinybert_hidden", "weight": 0.1, "layers": "auto"},
    ]
    student = {"kind": "text_transformer", "dim": 8, "depth": 1, "heads": 2}
    changes = {"student.model": student, "steps.0.objective": terms, "data.rows": 80}
    changes |= {"teacher.training.epochs": 1, "steps.0.training.epochs": 1, "export.int8": False}
    assert start(changes).data["models"]["student"]["parameters"] > 0


@pytest.fixture
def bert(tmp_path):
    """A small BERT of random weights with a tokenizer, as a folder of Hugging Face."""
    transformers = pytest.importorskip("transformers")
    from understudy.data.tokenizers import train_tokenizer

    made = train_tokenizer([text for text, _ in reviews()], size=100)
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").write_text(made.content)
    return {"data.tokenizer": "bert", "teacher.model": {"kind": "hf_encoder", "folder": "bert"}}


@pytest.mark.slow
def test_a_pretrained_encoder_teaches_and_a_student_is_cut_from_it(start, bert, tmp_path):
    cut = {"student": {"from_teacher": {"kind": "depth", "keep": 2, "by": "evenly"}}}
    short = {"teacher.training.epochs": 1, "steps.0.training.epochs": 1, "export.int8": False}
    record = start(bert | cut | short)
    models = record.data["models"]
    assert models["student"]["parameters"] < models["teacher"]["parameters"]
    assert models["student"]["bytes"] < models["teacher"]["bytes"]
    assert facts(tmp_path)["tokens"]["length"] <= 40
    answers = Deployed.open(record.data["files"]["onnx"])
    assert np.isfinite(answers.predict(text_rows(["fine"], answers))).all()


def test_a_tokenizer_that_is_not_the_models_is_refused_in_one_line(start, bert, tmp_path, capsys):
    changes = bert | {"data.tokenizer": {"size": 200, "train": "bpe"}}
    changes["data.tokenizer"]["size"] = 400
    (tmp_path / "t.yaml").write_text(recipe_of(changes))
    assert command(["run", str(tmp_path / "t.yaml"), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "the teacher must have the run's tokenizer" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"student.model": {"kind": "mlp", "hidden": [4]}}, "needs rows of numbers, but a"),
        (
            {"student.model": {"kind": "vit", "patch": 2, "dim": 4, "depth": 1, "heads": 1}},
            "images",
        ),
        ({"data.preprocess": {"scale": 2.0}}, "`data.preprocess` are for images and tables"),
        ({"data.views": [{"kind": "flip"}]}, r"\(flip\) are for images, but these rows are texts"),
    ],
)
def test_what_is_not_for_texts_is_refused_before_anything_is_trained(changes, law, start):
    with pytest.raises((RecipeError, DataError), match=law):
        start(changes)


def test_views_and_networks_of_texts_are_refused_for_images(tmp_path):
    base = {
        "data": {"source": {"kind": "digits"}, "rows": 300},
        "teacher": {"model": {"kind": "mlp", "hidden": [4]}, "training": {"epochs": 1}},
        "student": {"model": {"kind": "text_cnn"}},
        "seeds": 1,
    }
    for changes, law in (
        ({}, "needs texts, but a source of kind `digits` gives images: use `kind: convnet`"),
        (
            {"data.views": [{"kind": "token_crop"}], "student.model": {"kind": "convnet"}},
            r"\(token_crop\) are for texts, but these rows",
        ),
    ):
        recipe, place = recipes.loads(recipe_of(changes, base), folder=tmp_path)
        with pytest.raises((RecipeError, DataError), match=law):
            run(recipe, place=place, out=tmp_path / "run")


def test_texts_that_are_cut_are_counted_and_positions_are_as_many_as_asked_for(start, tmp_path):
    start({"data.tokenizer": {"size": 120, "max_length": 8}}, until="labels")
    assert facts(tmp_path)["preprocess"] == {
        "form": "text",
        "length": 8,
        "vocabulary": facts(tmp_path)["tokens"]["vocabulary"],
        "pad": 0,
    }
    notes = read_json(tmp_path / "run" / "data" / "stage.json")["summary"]["notes"]
    assert any("are longer than 8 tokens and lose their end" in note for note in notes)


def test_texts_without_any_label_are_refused(start, tmp_path):
    write(tmp_path, [(text, "") for text, _ in reviews(40)])
    with pytest.raises(DataError, match="label"):
        start({"data.source.classes": ["neg", "pos"]})


def test_mistakes_of_a_tokenizer_are_told_with_the_recipes_others(tmp_path):
    write(tmp_path, reviews(20))
    (tmp_path / "t.yaml").write_text(recipe_of({"data.tokenizer": "none/tokenizer.json"}))
    with pytest.raises(RecipeError, match=r"data\.tokenizer\.file: this file must exist"):
        build.checked(tmp_path / "t.yaml")
    both = {"file": "t.csv", "size": 50}
    (tmp_path / "t.yaml").write_text(recipe_of({"data.tokenizer": both}))
    with pytest.raises(RecipeError, match="`size` is for a tokenizer that is trained here"):
        build.checked(tmp_path / "t.yaml")
    for folder in ("./none", "package:no_such_package_here/model"):
        model = {"kind": "hf_encoder", "folder": folder}
        (tmp_path / "t.yaml").write_text(recipe_of({"teacher.model": model}))
        with pytest.raises(RecipeError, match=r"teacher\.model\.folder: this folder must exist"):
            build.checked(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text(recipe_of({"teacher.model.vocabulary": "many"}))
    with pytest.raises(RecipeError, match="vocabulary"):
        build.checked(tmp_path / "t.yaml")


def test_a_pretrained_encoder_never_reads_other_tokens_than_its_own(start, bert, tmp_path):
    # As many ids or fewer would go through, and every one of them would mean something else.
    with pytest.raises(ModelError, match=r"must have the run's tokenizer, but .* of 60"):
        start(bert | {"data.tokenizer": {"size": 60}})
    assert not (tmp_path / "run" / "teacher" / "weights.safetensors").exists()


def test_a_folder_of_an_installed_package_can_be_named(tmp_path):
    place = recipes.Source(folder=tmp_path)
    assert (place.resolve("package:understudy/recipe") / "load.py").is_file()
    assert not place.resolve("package:no_such_package_here/model").exists()


def test_a_student_begins_with_its_teachers_token_vectors_and_so_does_the_control(start, tmp_path):
    record = start({"student.token_vectors": {"scale": 0.5, "frozen": True}})
    assert record.data["models"]["student"]["scores"]["accuracy"]["value"] > 0.75
    teacher = read_weights(tmp_path / "run" / "teacher" / "weights.safetensors")
    start_of = read_weights(tmp_path / "run" / "student" / "seed-0.safetensors")
    own = next(value for name, value in start_of.items() if name.endswith("embedding.weight"))
    theirs = next(value for name, value in teacher.items() if name.endswith("embedding.weight"))
    centred = theirs - theirs.mean(dim=0)
    left = own - centred @ torch.linalg.lstsq(centred, own - own.mean(dim=0)).solution
    assert left.var(dim=0).max() < 1e-6 * own.var()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"student.model.dim": 17}, "no more numbers per token than it, but got 17 and 16"),
        ({"teacher": {"ensemble": []}}, "exactly one of"),
        ({"student.model": None, "student.from_teacher": {"kind": "depth", "keep": 1}}, "for a"),
    ],
)
def test_token_vectors_that_cannot_be_taken_are_refused_before_the_teacher_learns(
    start, tmp_path, changes, told
):
    with pytest.raises((ModelError, RecipeError), match=told):
        start({"student.token_vectors": {}, **changes})
    assert not (tmp_path / "run" / "teacher").exists()
