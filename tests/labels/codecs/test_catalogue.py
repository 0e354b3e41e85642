"""The table of codecs, and codecs made again from a manifest."""

import numpy as np
import pytest

from understudy.errors import StoreError
from understudy.labels.codecs import CATALOGUE, Dense, TopK, TopP, make
from understudy.labels.codecs.form import Stream
from understudy.labels.codecs.parts import array, stream


def test_it_has_all_kinds_and_cannot_be_changed():
    assert set(CATALOGUE) == {"dense", "int8", "top_k", "top_p", "sampled", "hidden"}
    with pytest.raises(TypeError):
        CATALOGUE["dense"] = Dense


def test_a_codec_is_made_from_plain_data():
    assert make("top_k", {"k": 3, "precision": "float16"}, {}) == TopK(k=3, precision="float16")
    assert make("top_p", {}, {}) == TopP()


@pytest.mark.parametrize(
    ("kind", "parameters", "law"),
    [
        ("topk", {}, r"`topk` is no codec: did you mean `top_k`\? known: dense, hidden"),
        ("top_k", {"kk": 3}, r"codec `top_k` takes no `kk`: did you mean `k`\?"),
        ("top_k", {"k": 0}, "codec `top_k`: `k >= 1` must hold"),
        ("top_k", {"k": "three"}, "codec `top_k`: "),
        ("hidden", {}, "codec `hidden` needs `weight`, but the store has none"),
        ("dense", {"precision": "int4"}, "codec `dense`: `precision` must be one of"),
    ],
)
def test_a_manifest_that_no_codec_fits_is_refused(kind, parameters, law):
    with pytest.raises(StoreError, match=law):
        make(kind, parameters, {})


def test_constants_that_a_codec_does_not_take_are_refused():
    with pytest.raises(StoreError, match="codec `dense` takes no `weight`"):
        make("dense", {}, {"weight": np.zeros((2, 2), np.float32)})


def test_parts_of_another_codec_are_refused():
    body = Stream(content=np.zeros(0, np.uint8), lengths=np.zeros(0, np.uint8))
    parts = {"body": body, "codes": np.zeros(0, np.int8)}
    with pytest.raises(StoreError, match="`values` must be an array, but the shard has body, cod"):
        array(parts, "values")
    with pytest.raises(StoreError, match="`codes` must be a stream"):
        stream(parts, "codes")
    with pytest.raises(StoreError, match="`body` must be an array"):
        array(parts, "body")
    assert array(parts, "codes").dtype == np.int8
    assert stream(parts, "body") is body
