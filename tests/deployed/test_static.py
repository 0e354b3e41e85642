"""The NumPy room of static encoders: its vectors, its files and what it refuses."""

import json
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
from safetensors.numpy import save_file

from deployed.static_cases import described
from understudy.deployed.static import INT8, StaticModel
from understudy.deployed.static_tokens import WordPieces
from understudy.errors import DataError, ModelError

TEXTS = ["playing", "a e, o!", "", "plays a", "中文", "  "]


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((120, 8)).astype(np.float32)


@pytest.fixture
def pieces():
    return WordPieces.read(described())


@pytest.fixture
def folder(tmp_path, vectors):
    """As sentence-transformers writes it."""
    save_file({"embedding.weight": vectors}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text(json.dumps(described()), encoding="utf-8")
    write_modules(tmp_path, "StaticEmbedding", "Normalize")
    return tmp_path


def write_modules(folder, *kinds, path=""):
    listed = [
        {"idx": i, "name": str(i), "path": "" if i else path, "type": f"some.place.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


def test_a_vector_is_the_sum_of_its_tokens_of_length_1(vectors, pieces):
    found = StaticModel(vectors, pieces).embed(TEXTS)
    assert found.dtype == np.float32
    for text, row in zip(TEXTS, found, strict=True):
        expected = vectors[pieces.encode(text)].sum(axis=0)
        length = np.linalg.norm(expected)
        np.testing.assert_allclose(row, expected / length if length else 0 * row, atol=1e-6)
    assert (found[2] == 0).all()


def test_without_a_length_of_1_it_is_the_mean(vectors, pieces):
    found = StaticModel(vectors, pieces, normalize=False).embed(TEXTS)
    expected = vectors[pieces.encode(TEXTS[1])].mean(axis=0)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    assert (found[5] == 0).all()


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
@pytest.mark.parametrize("width", [None, 3])
def test_the_batch_does_not_matter(vectors, pieces, batch, width):
    model = StaticModel(vectors, pieces)
    whole = model.embed(TEXTS, width=width, batch=6)
    np.testing.assert_allclose(model.embed(TEXTS, width=width, batch=batch), whole, atol=1e-6)
    alone = np.concatenate([model.embed([text], width=width) for text in TEXTS])
    np.testing.assert_allclose(alone, whole, atol=1e-6)
    assert whole.shape == (6, width or 8)


def test_a_prefix_is_a_vector_by_itself(vectors, pieces):
    found = StaticModel(vectors, pieces).embed(TEXTS, width=3)
    np.testing.assert_allclose(
        found, StaticModel(vectors[:, :3].copy(), pieces).embed(TEXTS), atol=1e-6
    )


def test_no_texts_have_no_vectors(vectors, pieces):
    assert StaticModel(vectors, pieces).embed([]).shape == (0, 8)
    assert StaticModel(vectors, pieces).embed(["", " "], batch=1).tolist() == [[0] * 8] * 2


def test_a_folder_gives_what_was_put_in(folder, vectors, pieces):
    opened = StaticModel.open(folder)
    assert (opened.width, opened.normalize) == (8, True)
    assert np.array_equal(opened.embed(TEXTS), StaticModel(vectors, pieces).embed(TEXTS))
    write_modules(folder, "StaticEmbedding")
    assert StaticModel.open(str(folder)).normalize is False


def test_bytes_are_multiplied_with_their_scales(folder, vectors, pieces):
    rows = np.random.default_rng(1).integers(-127, 128, (120, 8)).astype(np.int8)
    scales = np.random.default_rng(2).uniform(0.1, 1, 120).astype(np.float32)
    save_file({"vectors": rows, "scales": scales}, folder / INT8, {"normalize": "true"})
    expected = StaticModel(rows * scales[:, None], pieces).embed(TEXTS)
    np.testing.assert_allclose(StaticModel.open(folder).embed(TEXTS), expected, atol=1e-6)


def test_it_needs_numpy_alone(folder):
    code = (
        "import sys\n"
        "from understudy.deployed.static import StaticModel\n"
        f"assert StaticModel.open({str(folder)!r}).embed(['playing']).shape == (1, 8)\n"
        "heavy = {'torch', 'tokenizers', 'transformers', 'safetensors', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "modules.json").unlink(), "modules.json cannot be read"),
        (lambda f: (f / "modules.json").write_text("{"), "modules.json cannot be read"),
        (lambda f: (f / "modules.json").write_text("[3]"), "must list parts"),
        (lambda f: write_modules(f, "Transformer", "Pooling"), "has Transformer, Pooling"),
        (write_modules, "has nothing"),
        (lambda f: write_modules(f, "StaticEmbedding", path="../x"), "one is at ../x"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "must describe a tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be read as safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be read as safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abcdefghij"), "cannot be read as safe"),
        (
            lambda f: save_file({"other": np.ones((2, 2))}, f / "model.safetensors"),
            "cannot be read as safetensors of float32 or int8",
        ),
        (
            lambda f: save_file({"other": np.ones(2, np.float32)}, f / "model.safetensors"),
            r"must hold `embedding.weight` with 2 axes, but .* has other \[2\]",
        ),
        (
            lambda f: save_file(
                {"embedding.weight": np.ones((9, 2), np.float32)}, f / "model.safetensors"
            ),
            "do not belong together",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder, break_it, said):
    break_it(folder)
    with pytest.raises(ModelError, match=said):
        StaticModel.open(folder)


def test_a_file_that_was_cut_off_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        StaticModel.open(folder)


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_scales_belong_to_bytes_alone(pieces, kind):
    scales = np.ones(120, np.float32) if kind == np.float32 else None
    with pytest.raises(ModelError, match="one scale per row"):
        StaticModel(np.ones((120, 2), kind), pieces, scales=scales)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"texts": ["a"], "width": 9}, "`1 <= width <= 8` must hold"),
        ({"texts": ["a"], "width": 0}, "`1 <= width <= 8` must hold"),
        ({"texts": ["a"], "batch": 0}, "`batch >= 1` must hold"),
        ({"texts": "a text"}, "got one text"),
        ({"texts": ["a", 3]}, "number 1 is of type int"),
    ],
)
def test_what_cannot_be_embedded_is_refused(vectors, pieces, arguments, said, monkeypatch):
    # Types are only checked in tests; our own messages come after them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError, match=said):
        StaticModel(vectors, pieces).embed(**arguments)
