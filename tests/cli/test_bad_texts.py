"""Mistakes with texts, as a person meets them: exit code 2, one message in words, no traceback."""

import json
import shutil

import pytest

from pipeline.encoder_made import make_encoder
from pipeline.test_texts import recipe_of, reviews, write
from understudy.cli.main import run as command

pytest.importorskip("transformers")

LINES = list(reviews(40))
TEXTS = [text for text, _ in LINES]
ENCODER = {
    "data.tokenizer": "encoder",
    "teacher.model": {"kind": "hf_encoder", "folder": "encoder"},
}
ZERO_SHOT = {
    "teacher": {"zero_shot": {"encoder": "encoder", "classes": {"neg": "dull", "pos": "fine"}}}
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    home = tmp_path_factory.mktemp("bad")
    return make_encoder(home / "encoder", TEXTS, size=100, positions=24)


@pytest.fixture
def refused(tmp_path, encoder, capsys):
    """What the command line says of the small recipe with changes, over a file of reviews."""
    shutil.copytree(encoder, tmp_path / "encoder")
    write(tmp_path, LINES)

    def go(changes):
        (tmp_path / "t.yaml").write_text(recipe_of(changes))
        capsys.readouterr()
        code = command(["run", str(tmp_path / "t.yaml"), "--out", str(tmp_path / "run"), "--quiet"])
        told = capsys.readouterr().err
        assert code == 2, told
        assert "Traceback" not in told
        assert told.count("error:") == 1
        return told

    return go


@pytest.mark.parametrize(
    ("lines", "law"),
    [
        ([*LINES, ("", "pos")], "every row must have a text"),
        ([*LINES, (" \t", "pos")], "say `empty: drop`"),
        ([(text, "") for text in TEXTS], "label"),
        ([*LINES, ("a fine film", "Pos ")], "every class must be spelled one way"),
        ([*LINES, ("a fine film", "pos"), ("so dull", "NEG")], "`NEG`"),
        ([(str(at), mood) for at, (_, mood) in enumerate(LINES)], "nothing but numbers"),
    ],
)
def test_rows_that_are_not_as_they_should_be(refused, tmp_path, lines, law):
    write(tmp_path, lines)
    assert law in refused({})


def test_spaces_around_a_label_are_no_other_class(tmp_path, refused):
    write(tmp_path, [(text, f"{mood} " if at % 2 else mood) for at, (text, mood) in
                     enumerate(LINES)])  # fmt: skip
    # The run is refused for the column that is not there, and not for its labels.
    told = refused({"data.source": {"kind": "text", "path": "t.csv", "text": "revue"}})
    assert "column `revue` is not there: did you mean `review`" in told


def test_files_of_another_encoding_and_half_characters(tmp_path, refused):
    (tmp_path / "t.csv").write_bytes("review,mood\ncaf\xe9,pos\ndull,neg\n".encode("latin-1"))
    told = refused({})
    assert "line 2" in told
    assert "encoding: latin-1" in told
    rows = [{"review": text, "mood": mood} for text, mood in LINES]
    rows[3]["review"] = "half a \ud83d character"
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    told = refused({"data.source.path": "t.jsonl"})
    assert "lone surrogates" in told
    assert "row 4" in told
    rows[3]["review"] = 7
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert "column `review` must hold texts" in refused({"data.source.path": "t.jsonl"})


def test_tokenizers_and_models_that_do_not_belong_together(refused):
    other = ENCODER | {"data.tokenizer": {"train": "bpe", "size": 400}}
    assert "must have the run's tokenizer" in refused(other)
    longer = ENCODER | {"data.tokenizer": {"file": "encoder", "max_length": 30}}
    assert "texts must not be longer than the model" in refused(longer)


@pytest.mark.parametrize(
    ("gone", "law"),
    [
        ("model.safetensors", "the model"),
        ("config.json", "`config.json`"),
        ("tokenizer.json", "there is no"),
    ],
)
def test_a_folder_of_hugging_face_without_its_files(refused, tmp_path, gone, law):
    (tmp_path / "encoder" / gone).unlink()
    told = refused(ENCODER)
    assert law in told
    assert len(told.splitlines()) <= 3


@pytest.mark.parametrize(
    "gone", ["modules.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"]
)
def test_a_sentence_encoder_without_its_files(refused, tmp_path, gone):
    (tmp_path / "encoder" / gone).unlink()
    told = refused(ZERO_SHOT)
    assert len(told.splitlines()) <= 3


def test_names_of_a_hub_that_cannot_be_reached(refused, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = {"kind": "hf_encoder", "folder": "nobody/no-such-model"}
    told = refused({"teacher.model": model})
    assert "nobody/no-such-model" in told
    told = refused({"teacher": {"zero_shot": {**ZERO_SHOT["teacher"]["zero_shot"],
                                              "encoder": "nobody/no-such-encoder"}}})  # fmt: skip
    assert "nobody/no-such-encoder" in told
    assert len(told.splitlines()) <= 3


def test_pairs_and_tables_have_no_zero_shot_teacher(refused, tmp_path):
    write(tmp_path, [(text, text[::-1], mood) for text, mood in LINES],
          head=("review", "other", "mood"))  # fmt: skip
    assert "reads single texts" in refused({**ZERO_SHOT, "data.source.pair": "other"})
    table = {**ZERO_SHOT, "data": {"source": {"kind": "digits"}}}
    told = refused(table | {"student.model": {"kind": "mlp", "hidden": [4]}})
    assert "these rows are no texts" in told
    real = {**ZERO_SHOT, "task": {"kind": "regression"}}
    assert "tells classes, but the task is regression" in refused(real)
