"""Texts given to an exported model: by its own tokenizer, from files, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from understudy.data.tokenizers import train_tokenizer
from understudy.data.tokens import Tokens
from understudy.deployed import Deployed, load_rows, text_rows
from understudy.errors import DataError
from understudy.export.onnx import export_onnx
from understudy.models import TextCNN
from understudy.models.deployable import Deployable

WORDS = ["a fine film", "a dull plot", "fine and warm", "dull and cold film"] * 3


def file_of(folder, columns=("review",)):
    tokenizer = train_tokenizer(WORDS, size=80, length=16)
    torch.manual_seed(0)
    network = TextCNN(vocabulary=tokenizer.vocabulary, pad=tokenizer.pad, width=2, dim=8)
    inside = Tokens(length=16, vocabulary=tokenizer.vocabulary, pad=tokenizer.pad)
    module = Deployable(preprocess=inside, network=network, width=2).eval()
    told = {
        "task": "classification",
        "classes": ["neg", "pos"],
        "form": "text",
        "columns": [{"name": name, "categories": None} for name in columns],
        "tokenizer": tokenizer.describe(),
    }
    metadata = {key: json.dumps(value) for key, value in told.items()}
    example = torch.ones(3, 16, dtype=torch.int32)
    return export_onnx(module, example, folder / "student.onnx", metadata=metadata), module


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path, module = file_of(tmp_path_factory.mktemp("text"))
    return Deployed.open(path), module


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    path, _ = file_of(tmp_path_factory.mktemp("pair"), ("one", "two"))
    return Deployed.open(path)


def test_texts_are_answered_as_the_module_answers_their_tokens(exported):
    deployed, module = exported
    texts = ["a fine film", "cold", "a dull plot and a fine film and a dull film"]
    rows = text_rows(texts, deployed)
    assert rows.dtype == np.int32
    assert rows.shape == (3, 16)
    with torch.no_grad():
        expected = module(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(deployed.predict(rows), expected, atol=1e-5)
    # One by one, shorter and so with less padding.
    alone = np.concatenate([deployed.predict(text_rows([one], deployed)) for one in texts])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(deployed.predict(rows, batch=1), expected, atol=1e-5)
    assert deployed.predict(rows[:0]).shape == (0, 2)
    assert deployed.latency(rows, batch=2, threads=1, seconds=0.01).median_ms > 0


def test_a_row_of_nothing_but_padding_is_answered(exported):
    deployed, _ = exported
    assert np.isfinite(deployed.predict(np.full((2, 5), deployed.pad, np.int32))).all()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "a fine film\n\nso cold\r\n"),
        ("t.csv", "stars,review\n1,a fine film\n2,so cold\n"),
        ("t.tsv", "review\tstars\na fine film\t1\nso cold\t2\n"),
        ("t.jsonl", '{"review": "a fine film"}\n{"review": "so cold"}\n'),
    ],
)
def test_texts_are_read_from_files(name, content, exported, tmp_path):
    deployed, _ = exported
    (tmp_path / name).write_text(content)
    rows, names = load_rows([tmp_path / name], deployed)
    assert (rows == text_rows(["a fine film", "so cold"], deployed)).all()
    assert names == [f"{name}:1", f"{name}:2"]


def test_pairs_are_read_from_files_and_given_as_two(paired, tmp_path):
    expected = text_rows(["a film"], paired, pairs=["cold"])
    (tmp_path / "t.txt").write_text("a film\tcold\n")
    (tmp_path / "t.csv").write_text("two,one\ncold,a film\n")
    for name in ("t.txt", "t.csv"):
        assert (load_rows([tmp_path / name], paired)[0] == expected).all()
    with pytest.raises(DataError, match="takes pairs of texts, but got single ones"):
        text_rows(["a film"], paired)
    with pytest.raises(DataError, match="1 texts and 2 pairs"):
        text_rows(["a film"], paired, pairs=["a", "b"])
    (tmp_path / "t.txt").write_text("no tab\n")
    with pytest.raises(DataError, match="line 1: this model takes two texts, with a tab between"):
        load_rows([tmp_path / "t.txt"], paired)


@pytest.mark.parametrize(
    ("name", "content", "law"),
    [
        ("t.csv", b"words\na\n", "must have the column `review`"),
        ("t.csv", b"", "must have the column `review`"),
        ("t.csv", b"stars,review\n1\n", "must have 2 cells as the first line has, but row 1 has 1"),
        ("t.jsonl", b'{"words": "a"}\n', "line 1: there must be a text under `review`"),
        ("t.jsonl", b"{\n", "line 1: this is no JSON object"),
        ("t.txt", "brûlée".encode("latin-1"), "must be UTF-8 text"),
        ("t.txt", b"\n", "there must be a text to read"),
        ("t.png", b"x", "a model of texts cannot read"),
    ],
)
def test_files_that_are_not_as_they_should_be_are_refused(name, content, law, exported, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=law):
        load_rows([tmp_path / name], exported[0])
    with pytest.raises(DataError, match="there is no file"):
        load_rows([tmp_path / "none.txt"], exported[0])
    with pytest.raises(DataError, match=r"is a folder, but .* name those in it; known: \.txt"):
        load_rows([tmp_path], exported[0])


def test_empty_texts_and_half_characters_are_refused(exported):
    deployed, _ = exported
    with pytest.raises(DataError, match=r"1 of 2 are empty \(the first is number 2\)"):
        text_rows(["fine", "  "], deployed)
    with pytest.raises(DataError, match="lone surrogates"):
        text_rows(["half \ud83d"], deployed)


def test_a_model_of_something_else_takes_no_texts(tmp_path):
    path = export_onnx(torch.nn.Linear(4, 2), torch.zeros(2, 4), tmp_path / "a.onnx", metadata={})
    with pytest.raises(DataError, match="has no tokenizer, so it cannot be given a text"):
        text_rows(["fine"], Deployed.open(path))


def test_a_text_is_answered_without_torch(exported):
    code = (
        "import sys; from understudy.deployed import Deployed, text_rows; "
        f"d = Deployed.open({str(exported[0].path)!r}); d.predict(text_rows(['fine'], d)); "
        "assert not {'torch', 'pyarrow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
