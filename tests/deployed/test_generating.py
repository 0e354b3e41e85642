"""An exported decoder goes on with texts, with NumPy and ONNX Runtime alone."""

import itertools

import numpy as np
import pytest

from deployed.decoder_cases import NUMBER, PIECES, decoder_file, follows
from understudy.deployed import Deployed
from understudy.deployed.generating import Decoder
from understudy.deployed.sampling import Sampling, probabilities
from understudy.errors import DataError, ExportError

ROUND = follows(("<s>", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("e", "</s>"), ("ab", "c"))


@pytest.fixture
def decoder(tmp_path):
    return Decoder.open(decoder_file(tmp_path / "d.onnx", ROUND), threads=1)


def test_the_likeliest_tokens_follow_until_the_context_is_full(decoder):
    assert (decoder.vocabulary, decoder.context, decoder.stop) == (len(PIECES), 12, (2,))
    found = [PIECES[n] for n in decoder.tokens([1, NUMBER["b"]], most=4)]
    assert found == ["c", "a", "b", "c"]
    assert len(list(decoder.tokens([1], most=50))) == 11
    assert list(decoder.tokens([NUMBER["e"]], most=50)) == [2]
    assert len(list(decoder.tokens([NUMBER["e"]], most=5, stop=()))) == 5


def test_what_is_remembered_is_given_again(decoder):
    logits, past = decoder.step(np.array([[1, 5, 6], [1, 7, 8]]))
    assert logits.shape == (2, len(PIECES))
    _, past = decoder.step(np.array([[9], [10]]), past)
    assert past[0].tolist() == [[1, 5, 6, 9], [1, 7, 8, 10]]


def test_texts_come_piece_by_piece(decoder):
    assert list(decoder.stream("ab", most=4)) == ["c", "a", "b", "c"]
    assert "".join(decoder.stream("", most=6)) == "abcabc"
    assert "".join(decoder.stream("e", most=9)) == ""


def test_drawn_texts_are_replayed_by_their_seed(tmp_path):
    table = np.random.default_rng(0).normal(size=ROUND.shape).astype(np.float32)
    decoder = Decoder.open(decoder_file(tmp_path / "d.onnx", table, context=5000))

    def drawn(seed, **more):
        given = {"most": 60, "sampling": Sampling(), "stop": (), **more}
        return list(decoder.tokens([1], seed=seed, **given))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    few = Sampling(temperature=1.5, top_k=3)
    pairs = drawn(0, most=4000, sampling=few)
    for first, second in itertools.pairwise(pairs):
        assert second in np.argsort(-table[first], kind="stable")[:3]
    # The commonest token's followers, as often as they should.
    first = max(set(pairs), key=pairs.count)
    after = [b for a, b in itertools.pairwise(pairs) if a == first]
    goal = probabilities(table[first], few)
    seen = np.bincount(after, minlength=len(goal)) / len(after)
    assert np.abs(seen - goal).max() < 4 * (0.25 / len(after)) ** 0.5


@pytest.mark.parametrize(
    ("prompt", "law"),
    [
        ([], "1 to 11 tokens, .* but got 0: cut its beginning"),
        ([3] * 12, "1 to 11 tokens, as the context of d.onnx holds 12 .* but got 12"),
        ([3, 266], "`0 <= token < 266` must hold, .* from 3 to 266: encode texts with its own"),
        ([-1, 3], "from -1 to 3"),
    ],
)
def test_prompts_that_it_cannot_go_on_from(decoder, prompt, law):
    with pytest.raises(DataError, match=law):
        decoder.tokens(prompt, most=3)
    with pytest.raises(ValueError, match="`most >= 1`"):
        decoder.tokens([1], most=0)


def test_steps_beyond_the_context(decoder):
    _, past = decoder.step(np.full((1, 11), 5))
    with pytest.raises(DataError, match="1 to 1 tokens, its context, but got"):
        decoder.step(np.full((1, 2), 5), past)


def test_files_that_are_something_else(make_file, tmp_path):
    with pytest.raises(ExportError, match="does not go on with texts"):
        Decoder.open(make_file())
    with pytest.raises(ExportError, match="no file"):
        Decoder.open(tmp_path / "none.onnx")
    file = decoder_file(tmp_path / "d.onnx", ROUND, tokenizer=None)
    with pytest.raises(DataError, match=r"d\.onnx has no tokenizer, so it cannot be given a text"):
        Decoder.open(file).stream("a", most=2)
    with pytest.raises(ExportError, match="goes on with texts and does not answer rows"):
        Deployed.open(file)
