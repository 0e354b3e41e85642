"""The laws that every store of knowledge keeps. Inherit `StoreLaws` and give it a `case` fixture.

class TestLabelStore(StoreLaws):
    @pytest.fixture
    def case(self) -> StoreCase:
        return StoreCase(write=..., open=LabelStore)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from understudy.errors import StoreError

ROWS, WIDTH = 23, 4
FINGERPRINTS = {"teacher": "0123456789abcdef", "data": "fedcba9876543210"}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreCase:
    """One kind of store.

    Attributes:
        write: writes a finished store of `(folder, ids, fields, fingerprints)` in that order.
        open: opens it with `open(folder, expect=...)`; the result has `offers`, `read` and `len`.
        exact: whether it gives back float32 answers bit for bit.
    """

    write: Callable[[Path, np.ndarray, Mapping[str, np.ndarray], Mapping[str, str]], Any]
    open: Callable[..., Any]
    exact: bool = True


def some_ids() -> np.ndarray:
    """Unsorted, with gaps, negative and large."""
    generator = np.random.default_rng(7)
    ids = generator.choice(10**12, ROWS, replace=False)
    ids[:3] = [0, -5, 2**62]
    return generator.permutation(ids).astype(np.int64)


class StoreLaws:
    """Every test here is a law; `case` is the store that must keep it."""

    @pytest.fixture
    def case(self) -> StoreCase:
        raise NotImplementedError("a suite of store laws needs a `case` fixture")

    @pytest.fixture
    def written(self, case, tmp_path):
        ids, generator = some_ids(), np.random.default_rng(8)
        answers = {
            "logits": generator.standard_normal((ROWS, WIDTH)).astype(np.float32),
            "hidden": generator.standard_normal((ROWS, 2, 3)).astype(np.float32),
        }
        answers["logits"][4] = [1e-45, -0.0, 3.4e38, 1 / 3]
        case.write(tmp_path / "store", ids, answers, FINGERPRINTS)
        return tmp_path / "store", ids, answers

    def check(self, case, store, ids, answers, at):
        found = store.read(torch.from_numpy(ids[at]))
        assert set(found) == set(answers)
        for name, value in answers.items():
            assert found[name].dtype == torch.float32
            if case.exact:
                assert found[name].numpy().tobytes() == value[at].tobytes()
            else:
                torch.testing.assert_close(found[name], torch.from_numpy(value[at]))

    def test_it_says_what_it_offers_and_how_many_rows(self, case, written):
        folder, _, answers = written
        store = case.open(folder)
        assert store.offers == frozenset(answers)
        assert len(store) == ROWS

    def test_all_rows_in_any_order(self, case, written):
        folder, ids, answers = written
        store = case.open(folder)
        self.check(case, store, ids, answers, np.arange(ROWS))
        self.check(case, store, ids, answers, np.arange(ROWS)[::-1].copy())
        self.check(case, store, ids, answers, np.argsort(ids))
        self.check(case, store, ids, answers, np.random.default_rng(9).permutation(ROWS))

    def test_a_subset_and_a_single_row_and_none(self, case, written):
        folder, ids, answers = written
        store = case.open(folder)
        for at in (np.arange(3, 9), np.array([ROWS - 1]), np.array([], dtype=np.int64)):
            self.check(case, store, ids, answers, at)

    def test_repeated_ids_are_answered_as_often(self, case, written):
        folder, ids, answers = written
        at = np.array([5, 5, 0, 5, 22, 0])
        self.check(case, case.open(folder), ids, answers, at)

    def test_what_it_gives_belongs_to_the_caller(self, case, written):
        folder, ids, answers = written
        store = case.open(folder)
        store.read(torch.from_numpy(ids))["logits"].zero_()
        self.check(case, store, ids, answers, np.arange(ROWS))

    def test_it_reads_the_same_after_it_was_opened_again(self, case, written):
        folder, ids, answers = written
        self.check(case, case.open(folder), ids, answers, np.arange(ROWS))
        self.check(case, case.open(folder), ids, answers, np.arange(ROWS))

    def test_unknown_ids_are_refused_and_named(self, case, written):
        folder, ids, _ = written
        store = case.open(folder)
        for unknown in (12345, -(2**62), 2**63 - 1):
            wanted = torch.tensor([int(ids[0]), unknown, int(ids[1])])
            with pytest.raises(StoreError, match=f"1 rows were never labelled.*{unknown}"):
                store.read(wanted)
        with pytest.raises(StoreError, match="7 rows were never labelled"):
            store.read(torch.arange(100, 107))

    def test_the_right_fingerprints_open_it(self, case, written):
        folder, _, _ = written
        assert len(case.open(folder, expect=FINGERPRINTS)) == ROWS
        assert len(case.open(folder, expect={"data": FINGERPRINTS["data"]})) == ROWS

    @pytest.mark.parametrize("name", ["teacher", "data", "views"])
    def test_another_fingerprint_is_refused_and_both_are_named(self, case, written, name):
        folder, _, _ = written
        with pytest.raises(StoreError) as error:
            case.open(folder, expect=FINGERPRINTS | {name: "something else"})
        text = str(error.value)
        assert f"{name}: the store has {FINGERPRINTS.get(name, 'none')}" in text
        assert "this run something else" in text
        assert str(folder) in text
