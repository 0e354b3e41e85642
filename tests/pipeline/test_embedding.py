"""Vectors of sentences through the whole pipeline, from a tiny encoder that is made here."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

from pipeline.encoders import encoder_folder, sentences
from understudy import recipe as recipes
from understudy.cli.main import run as command
from understudy.deployed import Deployed, text_rows
from understudy.deployed.static import StaticModel
from understudy.errors import DataError, ModelError, RecipeError
from understudy.pipeline import run
from understudy.pipeline.model_marks import model_marks
from understudy.recipe import Entry, Source

SMALL = {
    "task": {"kind": "embedding"},
    "data": {
        "source": {"kind": "lines", "path": "texts.txt"},
        "tokenizer": {"size": 100},
        "test": 0.2,
        "validation": 0.15,
    },
    "teacher": {"model": {"kind": "sentence_encoder", "folder": "./encoder"}},
    "student": {"model": {"kind": "text_cnn", "dim": 8, "filters": 8}},
    "steps": [{"training": {"epochs": 4, "batch_size": 16, "optimizer": {"learning_rate": 0.01}}}],
    "evaluate": {"draws": 200, "latency_seconds": 0.01},
    "export": {"int8": False},
    "seeds": 1,
}
PAIRS = {"path": "pairs.tsv", "first": "one", "second": "two", "score": "alike"}
PROBE = {
    "name": "music",
    "source": {"kind": "text", "path": "probe.csv", "text": "t", "target": "y"},
    "test": 0.3,
}
CUT = {"from_teacher": {"kind": "depth", "keep": 1, "by": "evenly"}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture
def start(tmp_path, encoder):
    """Run the small recipe with changes, in a folder with texts, pairs and a probe."""
    (tmp_path / "encoder").symlink_to(encoder, target_is_directory=True)
    (tmp_path / "texts.txt").write_text("\n".join(sentences(120)) + "\n")
    own = sentences(40, seed=3)
    with (tmp_path / "pairs.tsv").open("w") as file:
        print("one", "two", "alike", sep="\t", file=file)
        for one, two in zip(own[::2], own[1::2], strict=True):
            print(one, two, len({*one.split()} & {*two.split()}), sep="\t", file=file)
    with (tmp_path / "probe.csv").open("w", newline="") as file:
        kinds = [("music" if "sing" in t or "guitar" in t else "rest") for t in sentences(60, 5)]
        csv.writer(file).writerows([("t", "y"), *zip(sentences(60, 5), kinds, strict=True)])

    def go(changes=None, **options):
        data = json.loads(json.dumps(SMALL))
        for path, value in (changes or {}).items():
            *above, last = path.split(".")
            here = data
            for part in above:
                here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
            here[last] = value
        recipe, place = recipes.loads(yaml.safe_dump(data), name="t.yaml", folder=tmp_path)
        return run(recipe, place=place, out=tmp_path / "run", **options)

    return go


def library(folder, texts, **options):
    """What the installed sentence-transformers says."""
    module = pytest.importorskip("sentence_transformers")
    model = module.SentenceTransformer(str(folder), device="cpu", **options)
    return model.encode(list(texts), convert_to_numpy=True)


def test_a_teacher_is_a_function_of_all_its_parts(tmp_path, encoder):
    shutil.copytree(encoder, tmp_path / "own")
    place = Source(folder=tmp_path)
    entry = Entry.model_validate({"kind": "sentence_encoder", "folder": "./own"})
    before = model_marks(entry, place)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {*before}
    pooling = tmp_path / "own" / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert model_marks(entry, place) != before


def of_file(folder, texts):
    session = Deployed.open(folder / "run" / "export" / "student.onnx")
    return session.predict(text_rows(list(texts), session))


def test_a_fresh_student_with_a_tokenizer_of_its_own_learns_a_teachers_vectors(
    start, tmp_path, capsys
):
    record = start({"evaluate.pairs": PAIRS, "evaluate.probes": [PROBE]})
    data = record.data
    told = {n: m["scores"]["teacher_cosine"]["value"] for n, m in data["models"].items()}
    assert told["teacher"] == pytest.approx(1)
    assert told["student"] > 0.7
    # The start network, untrained: vectors have no labels to learn from.
    assert abs(told["control"]) < 0.5
    assert data["curves"][1] == {"arm": "control", "seed": 0, "points": []}
    assert any("without any training" in note for note in data["verdict"]["notes"])
    assert data["curves"][0]["points"][-1]["validation"] > 0.6
    # What the vectors are good for, of all alike; pairs come first.
    assert data["primary"]["name"] == "spearman"
    assert set(data["vectors"]["pairs"]["models"]) == {"teacher", "student", "control"}
    for name, model in data["vectors"]["pairs"]["models"].items():
        assert -1 <= model["low"] <= model["value"] <= model["high"] <= 1
        assert data["models"][name]["scores"]["spearman"]["value"] == model["value"]
    own = data["vectors"]["pairs"]["models"]["student"]["value"]
    assert data["deployed"]["spearman"] == pytest.approx(own, abs=1e-6)
    (probe,) = data["vectors"]["probes"]
    assert (probe["rows"], probe["test"]) == (42, 18)
    assert probe["models"]["student"]["value"] > 0.5
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What the vectors are good for" in page
    assert "music, accuracy" in page
    # One file and one folder, the same vectors.
    texts = sentences(8, seed=7)
    vectors = of_file(tmp_path, texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    folder = tmp_path / "run" / "export" / "sentence_transformers"
    assert data["parity"]["sentence_transformers"]["max_difference"] < 1e-5
    found = library(folder, texts, trust_remote_code=True)
    np.testing.assert_allclose(found, vectors, atol=1e-5)
    assert command(["predict", str(tmp_path / "run"), "--text", texts[0], "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(answer["vector"], vectors[0], atol=1e-6)
    assert command(["predict", str(tmp_path / "run"), "--text", texts[0]]) == 0
    assert "16 numbers" in capsys.readouterr().out
    again = start({"evaluate.pairs": PAIRS, "evaluate.probes": [PROBE]})
    assert again.data["created"] == data["created"], "a finished run is not done again"
    # Other scores in the same file are judged by.
    lines = (tmp_path / "pairs.tsv").read_text().splitlines()
    turned = [f"{one[: one.rindex(chr(9))]}\t{-int(one.split(chr(9))[2])}" for one in lines[1:]]
    (tmp_path / "pairs.tsv").write_text("\n".join([lines[0], *turned]) + "\n")
    other = start({"evaluate.pairs": PAIRS, "evaluate.probes": [PROBE]})
    found = other.data["vectors"]["pairs"]["models"]["student"]["value"]
    assert found == pytest.approx(-own)


def test_a_static_student_begins_in_closed_form_and_answers_with_numpy_alone(start, tmp_path):
    objective = [
        {"kind": "matryoshka", "widths": [8, 4], "of": {"kind": "cosine"}},
        {"kind": "score_distribution", "weight": 0.3},
    ]
    record = start(
        {
            "task.dimension": 8,
            "student.model": {"kind": "static", "strength": 0.2},
            "steps.0.objective": objective,
        }
    )
    told = {n: m["scores"]["teacher_cosine"]["value"] for n, m in record.data["models"].items()}
    # The control is the closed form; random token vectors are near 0.
    assert told["control"] > 0.6
    assert told["student"] > 0.6
    texts = [*sentences(6, seed=7), "a man " * 40]  # whole, however long
    folder = tmp_path / "run" / "export" / "sentence_transformers"
    vectors = StaticModel.open(folder).embed(texts)
    np.testing.assert_allclose(library(folder, texts), vectors, atol=1e-5)
    np.testing.assert_allclose(of_file(tmp_path, texts[:6]), vectors[:6], atol=1e-5)
    small = StaticModel.open(tmp_path / "run" / "export" / "static_int8")
    np.testing.assert_allclose(small.embed(texts), vectors, atol=0.05)
    assert StaticModel.open(folder).embed(texts, width=4).shape == (7, 4)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [None, 8])
def test_a_cut_student_is_saved_as_a_transformer(start, tmp_path, dimension):
    changes = {"student": CUT, "data.tokenizer": "./encoder"}
    if dimension is not None:
        changes["task.dimension"] = dimension
    record = start(changes)
    told = {n: m["scores"]["teacher_cosine"]["value"] for n, m in record.data["models"].items()}
    assert told["student"] > told["control"]
    texts = sentences(6, seed=7)
    found = library(tmp_path / "run" / "export" / "sentence_transformers", texts)
    assert found.shape == (6, dimension or 16)
    np.testing.assert_allclose(found, of_file(tmp_path, texts), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"kind": "text_bilstm", "dim": 8, "hidden": 8},
        {"kind": "text_transformer", "dim": 8, "depth": 1, "heads": 2},
        {"kind": "text_static", "dim": 8},
    ],
    ids=lambda model: model["kind"],
)
def test_every_fresh_network_of_texts_can_be_a_student(start, tmp_path, model):
    record = start({"student.model": model})
    told = {n: m["scores"]["teacher_cosine"]["value"] for n, m in record.data["models"].items()}
    assert record.data["primary"]["name"] == "teacher_cosine"
    assert told["student"] > told["control"] + 0.2
    texts = sentences(6, seed=7)
    folder = tmp_path / "run" / "export" / "sentence_transformers"
    found = library(folder, texts, trust_remote_code=True)
    np.testing.assert_allclose(found, of_file(tmp_path, texts), atol=1e-5)


REFUSED = [
    ({"teacher.model.folder": "./elsewhere"}, "this folder must exist"),
    ({"teacher.training": {"epochs": 1}}, "taken as it is in its folder"),
    ({"teacher": {"onnx": "t.onnx"}}, "for any other say `dimension`"),
    ({"task": {"kind": "classification"}}, "`sentence_encoder` answers with vectors"),
    ({"task": {"kind": "classification", "dimension": 8}}, "`dimension` is of `kind: embedding`"),
    ({"steps.0.objective": [{"kind": "soft_target"}]}, "not made for embedding: use one of"),
    ({"steps.0.objective": [{"kind": "matryoshka", "of": {"kind": "matryoshka"}}]}, "wraps a"),
    ({"steps.0.objective": [{"kind": "matryoshka", "widths": [0]}]}, "`width >= 1` must hold"),
    ({"evaluate.pairs": PAIRS | {"path": "p.tsv"}}, "this file must exist"),
    ({"evaluate.pairs": PAIRS | {"score": 3}}, "three names or three numbers"),
    ({"evaluate.probes": [PROBE, PROBE]}, "every probe needs a name of its own"),
    ({"transfer": {"source": PROBE["source"], "labelled": 20}}, "with `evaluate.probes`"),
]


@pytest.mark.parametrize(("changes", "law"), REFUSED, ids=[law for _, law in REFUSED])
def test_what_makes_no_run_of_vectors_is_refused_before_anything_runs(start, changes, law):
    with pytest.raises(RecipeError) as error:
        start(changes)
    assert law in str(error.value)


WRONG = [
    ({"evaluate.pairs": PAIRS | {"score": "gold"}}, "column `gold` of the pairs is not there"),
    ({"data.source": PROBE["source"]}, "vectors are learned from texts alone"),
    ({"data.source": {"kind": "digits"}}, "these rows are images or tables"),
    ({"data.source.empty": "error"}, "every row must have a text"),
    ({"task.dimension": 17}, "`dimension <= 16` must hold for this teacher, but got 17"),
    ({"student": CUT}, "a student that is made of its teacher's parts reads its tokens"),
    ({"data.views": [{"kind": "token_dropout"}]}, "random `data.views` change the student's"),
    ({"labels.use": "live"}, "`labels.use: live` hands on the student's tokens"),
]


@pytest.mark.parametrize(("changes", "law"), WRONG, ids=[law for _, law in WRONG])
def test_what_does_not_fit_is_refused_before_training(start, tmp_path, changes, law):
    with (tmp_path / "texts.txt").open("a") as file:
        file.write("\n\n")
    with pytest.raises(DataError) as error:
        start(changes)
    assert law in str(error.value)
    assert not (tmp_path / "run" / "distil").exists()


def test_a_teacher_that_is_nowhere_is_told_in_one_line(start, tmp_path, capsys):
    with pytest.raises(ModelError) as error:
        start({"teacher.model.folder": "no-such-encoder"})
    assert "the hub cannot be reached" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_goes_beyond_the_models_vectors_is_refused(start, tmp_path, encoder):
    broken = tmp_path / "broken"
    broken.mkdir()
    for part in encoder.iterdir():
        (broken / part.name).symlink_to(part)
    (broken / "tokenizer.json").unlink()
    told = json.loads((encoder / "tokenizer.json").read_text())
    told["model"]["vocab"]["beyond"] = 500
    (broken / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ModelError) as error:
        start({"teacher.model.folder": "./broken"})
    assert "tokenizer and model must belong together, " in str(error.value)
    assert "has 501 ids" in str(error.value)
    assert not (tmp_path / "run" / "student").exists()
