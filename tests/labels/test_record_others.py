"""Recording where somebody else has recorded: what is gone on with, refused, or begun anew."""

from contextlib import suppress

import numpy as np
import pytest
import torch

from labels.conftest import FakeTeacher
from labels.test_record import ROWS, BreaksError, breaking
from understudy.contracts import Knowledge, Ragged
from understudy.errors import StoreError
from understudy.labels.codecs import Hidden
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep
from understudy.labels.store import LabelStore

OTHERS = [
    ({"fingerprints": {"teacher": "other", "data": "bbbb"}},
     "teacher: the store has aaaa, this run other"),
    ({"needs": ("hidden",)}, r"codecs: the store has \{'logits'.*this run \{'hidden'"),
    ({"made": {"batch_size": 9}}, r"made: the store has \{\}, this run \{'batch_size': 9\}"),
    ({"shard_rows": 12}, r"plan: the store has \w{16}, this run \w{16}; `labels.shard_rows`"),
    ({"seed": 3}, r"plan: the store has \w{16}, this run \w{16}.*`data.seed` is another one"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "law"), OTHERS)
@pytest.mark.parametrize("after", [6, None])
def test_a_store_of_something_else_is_refused_and_stays(
    write, fake_teacher, tmp_path, content, change, law, after
):
    if after is None:
        write()
    else:
        with pytest.raises(BreaksError):
            write(teacher=breaking(fake_teacher, after))
    before = content(tmp_path / "store")
    fake_teacher.asked.clear()
    with pytest.raises(StoreError, match=law):
        write(teacher=fake_teacher, **change)
    assert not fake_teacher.asked
    assert content(tmp_path / "store") == before
    write()
    assert LabelStore(tmp_path / "store").manifest.rows == ROWS


@pytest.mark.parametrize("change", [change for change, _ in OTHERS])
def test_one_that_was_begun_and_is_empty_is_begun_anew(
    write, fake_teacher, tmp_path, content, change
):
    with pytest.raises(BreaksError):
        write(teacher=breaking(fake_teacher, 0))
    assert set(content(tmp_path / "store")) == {"manifest.json"}
    write(**change)
    write(tmp_path / "whole", **change)
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_finished_store_can_be_opened_while_a_lost_shard_is_made_again(write, tmp_path, content):
    write()
    store, seen = tmp_path / "store", []
    expected = content(store)
    (store / "shard-00002.safetensors").unlink()

    class Looks(FakeTeacher):
        def __call__(self, batch):
            opened = LabelStore(store)
            seen.append(opened.read(torch.tensor([3]))["logits"])
            with pytest.raises(StoreError, match=r"shard-00002.safetensors is missing"):
                opened.read(batch.ids)
            return super().__call__(batch)

    with pytest.raises(BreaksError):
        write(teacher=breaking(Looks(), 1))
    write(teacher=Looks())
    assert len(seen) == 3  # two batches in all, the first of them twice
    assert torch.equal(seen[0], LabelStore(store).read(torch.tensor([3]))["logits"])
    assert content(store) == expected


class TestSomebodyElseBeginsFirst:
    """Between the moment somebody looks and the moment they hold the lock."""

    @pytest.fixture
    def first(self, monkeypatch, write, tmp_path):
        """Lets another recording go first, when the next one is about to lock."""
        original = LocalPlace.lock

        def first(**changes):
            def lock(place):
                monkeypatch.setattr(LocalPlace, "lock", original)
                with suppress(BreaksError):
                    write(**changes)
                return original(place)

            monkeypatch.setattr(LocalPlace, "lock", lock)

        return first

    @pytest.mark.parametrize(("after", "asked"), [(100, 0), (4, ROWS - 16)])
    def test_one_of_the_same_plan_is_gone_on_with(
        self, first, write, fake_teacher, tmp_path, content, after, asked
    ):
        first(teacher=breaking(FakeTeacher(), after))
        write(teacher=fake_teacher)
        assert sum(fake_teacher.asked) == asked
        write(tmp_path / "whole")
        assert content(tmp_path / "store") == content(tmp_path / "whole")

    @pytest.mark.parametrize("after", [100, 4])
    def test_one_of_another_plan_is_left_alone(
        self, first, write, fake_teacher, tmp_path, content, after
    ):
        other = {"fingerprints": {"teacher": "other", "data": "bbbb"}}
        first(teacher=breaking(FakeTeacher(), after), **other)
        with pytest.raises(StoreError, match="teacher: the store has other, this run aaaa"):
            write(teacher=fake_teacher)
        assert not fake_teacher.asked
        write(**other)
        write(tmp_path / "whole", **other)
        assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_store_without_its_manifest_is_gone_on_with_by_its_own_run_alone(
    write, fake_teacher, tmp_path, content
):
    write()
    expected = content(tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    kept = content(tmp_path / "store")
    with pytest.raises(StoreError, match=r"has no manifest.json, and its shard-00000.safetensors"):
        write(teacher=fake_teacher, fingerprints={"teacher": "other", "data": "bbbb"})
    assert content(tmp_path / "store") == kept
    write(teacher=fake_teacher)
    assert not fake_teacher.asked
    assert content(tmp_path / "store") == expected


def test_the_head_of_states_is_a_part_of_what_a_store_is(write, tmp_path, content):
    def keep(size):
        weight = size * np.eye(4, 3, dtype=np.float32)
        return {"logits": Keep(codec=Hidden(weight=weight), reads="logits")}

    write(keep=keep(1))
    before = content(tmp_path / "store")
    with pytest.raises(StoreError, match="plan: the store has"):
        write(keep=keep(2))
    assert content(tmp_path / "store") == before


class Short:
    """Answers too few rows, or says otherwise how long they are."""

    offers = frozenset({"logits"})

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, batch):
        return Knowledge(fields={"logits": self.answer(len(batch))})


@pytest.mark.parametrize("bad", ["error", "skip"])
@pytest.mark.parametrize(("answer", "law"), [
    (lambda rows: torch.ones(1, 3), "of 4 rows its logits has 1"),
    (lambda rows: torch.ones(rows - 1, 3), "of 4 rows its logits has 3"),
    (lambda rows: torch.tensor(1.0), "of 4 rows its logits has 0"),
    (lambda rows: Ragged(values=torch.ones(7, 3), lengths=torch.tensor([3, 4])), "its logits has"),
    (lambda rows: Ragged(values=torch.ones(7, 3), lengths=torch.full((rows,), 2)), "are 8 and 7"),
])  # fmt: skip
def test_an_answer_that_is_not_one_of_every_row_is_refused(write, answer, law, bad):
    with pytest.raises((StoreError, ValueError), match=law):
        write(teacher=Short(answer), on_bad_rows=bad)


def test_what_float32_cannot_hold_is_not_finite(write, tmp_path):
    def loud(rows):
        logits = torch.ones(rows, 3, dtype=torch.float64)
        logits[1] = 1e39
        return logits

    with pytest.raises(StoreError, match=r"must be finite, but 1 of 4 rows are not \(ids 1"):
        write(teacher=Short(loud))
    write(teacher=Short(loud), on_bad_rows="skip")
    store = LabelStore(tmp_path / "store")
    assert 1 not in store.ids()
    assert store.read(torch.tensor([0]))["logits"].isfinite().all()
