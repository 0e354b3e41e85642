"""Sentences: rows of tokens, then the STS benchmark's files, then what is refused."""

import jaxtyping
import numpy as np
import pytest

from understudy.data.sentences import TokenLoader, read_sts, token_rows
from understudy.errors import DataError

LINE = "main-news\tMSRvid\t2012test\t{n}\t{score}\t{first}\t{second}\n"


def write(folder, lines):
    path = folder / "sts.csv"
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def test_rows_are_filled_up_at_the_end_and_cut_where_asked():
    rows = token_rows([[5, 6, 7], [8]], pad=9)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, [[5, 6, 7], [8, 9, 9]])
    np.testing.assert_array_equal(token_rows([[5, 6, 7], [8]], pad=0, length=2), [[5, 6], [8, 0]])
    np.testing.assert_array_equal(token_rows([[5], [8]], pad=0, length=64), [[5], [8]])


def some_ids(count, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(1, 50, draw.integers(1, 30)).tolist() for _ in range(count)]


def test_an_epoch_holds_every_row_once_and_batches_are_as_long_as_their_longest():
    ids = some_ids(203)
    loader = TokenLoader(ids, pad=0, batch_size=10, seed=3)
    batches = list(loader)
    assert len(batches) == len(loader) == 21
    assert sorted(np.concatenate([b.ids.numpy() for b in batches])) == list(range(203))
    for batch in batches:
        own = [ids[place] for place in batch.ids]
        assert batch.inputs.shape == (len(own), max(len(row) for row in own))
        np.testing.assert_array_equal(batch.inputs.numpy(), token_rows(own, pad=0))


def test_rows_of_like_lengths_meet_and_others_in_the_next_epoch():
    ids = some_ids(320)
    loader = TokenLoader(ids, pad=0, batch_size=16, seed=0)
    first = [b.ids.tolist() for b in loader]
    again = [b.ids.tolist() for b in loader]
    padding = sum(int((b.inputs == 0).sum()) for b in loader)
    drawn = np.random.default_rng(0).permutation(320).reshape(20, 16)
    apart = sum(int((token_rows([ids[i] for i in b], pad=0) == 0).sum()) for b in drawn)
    assert padding < 0.2 * apart
    loader.sampler.set_epoch(1)
    later = [b.ids.tolist() for b in loader]
    assert first == again
    assert {tuple(sorted(b)) for b in first}.isdisjoint(tuple(sorted(b)) for b in later)
    other = [b.ids.tolist() for b in TokenLoader(ids, pad=0, batch_size=16, seed=1)]
    assert first != other


def test_without_a_seed_rows_go_from_short_to_long_and_all_of_them():
    ids = some_ids(21)
    loader = TokenLoader(ids, pad=0, batch_size=10)
    places = np.concatenate([b.ids.numpy() for b in loader])
    lengths = [len(ids[place]) for place in places]
    assert lengths == sorted(lengths)
    assert len(places) == 21


def test_a_single_row_that_is_left_over_is_left_out_of_training():
    loader = TokenLoader(some_ids(21), pad=0, batch_size=10, seed=0, length=5)
    batches = list(loader)
    assert [len(b) for b in batches] == [10, 10]
    assert len(loader) == 2
    assert max(b.inputs.shape[1] for b in batches) == 5


def test_quotation_marks_are_words_and_what_follows_the_sentences_is_dropped(tmp_path):
    first = 'A 21" monitor, "quoted'
    path = write(
        tmp_path,
        [
            LINE.format(n=1, score="5.000", first=first, second="B."),
            LINE.format(n=2, score="0.5", first="Émile eats.", second="B.").replace(
                "\n", "\tLICENSE\thttp://x\n"
            ),
            "\n",
        ],
    )
    pairs = read_sts(path)
    assert list(pairs) == [(first, "B."), ("Émile eats.", "B.")]
    assert pairs.scores.tolist() == [5.0, 0.5]
    assert pairs.sentences == (first, "B.", "Émile eats.")
    assert len(pairs) == 2


@pytest.mark.data
@pytest.mark.parametrize(("split", "count"), [("train", 5749), ("dev", 1500), ("test", 1379)])
def test_the_real_files_have_all_of_their_pairs(shared_data, split, count):
    pairs = read_sts(str(shared_data / "stsb" / f"sts-{split}.csv"))
    assert len(pairs) == len(pairs.scores) == count
    assert 0 <= pairs.scores.min() < pairs.scores.max() == 5
    assert all(text == text.strip() and "\t" not in text for pair in pairs for text in pair)


@pytest.fixture
def as_users_run_it(monkeypatch):
    """Shape annotations are only checked in tests; our own messages come after them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("as_users_run_it")
class TestRefusals:
    def test_rows_without_a_token(self):
        with pytest.raises(DataError, match="row 1 of 2 is empty"):
            token_rows([[1], []], pad=0)
        with pytest.raises(DataError, match="there are no rows"):
            token_rows([], pad=0)
        with pytest.raises(DataError, match=r"`length >= 1` must hold.*length=0"):
            token_rows([[1]], pad=0, length=0)

    def test_a_loader_of_them(self):
        with pytest.raises(DataError, match="row 1 of 2 is empty"):
            TokenLoader([[1], []], pad=0, batch_size=2)

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        (tmp_path / "sts-test.csv").write_text("x")
        with pytest.raises(DataError, match=r"did you mean .*sts-test\.csv"):
            read_sts(str(tmp_path / "sts_test.csv"))

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("a,b,c,d,1.0,e,f\n", "line 2: a pair must have .* but it has 1 columns"),
            (LINE.format(n=1, score="high", first="a", second="b"), "line 2: .* it is 'high'"),
            (LINE.format(n=1, score="nan", first="a", second="b"), "line 2: .* it is 'nan'"),
            (LINE.format(n=1, score="1", first="a", second=" "), "line 2: a pair must have"),
        ],
    )
    def test_a_line_that_is_not_a_pair_is_named(self, tmp_path, line, message):
        path = write(tmp_path, [LINE.format(n=0, score="1", first="a", second="b"), line])
        with pytest.raises(DataError, match=message):
            read_sts(path)

    def test_a_file_without_pairs_or_of_other_text(self, tmp_path):
        with pytest.raises(DataError, match="is empty"):
            read_sts(write(tmp_path, ["\n"]))
        (tmp_path / "latin.csv").write_bytes(b"\xe9\n")
        with pytest.raises(DataError, match="UTF-8"):
            read_sts(str(tmp_path / "latin.csv"))
