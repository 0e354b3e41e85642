"""Recording where somebody else has recorded: what is gone on with, refused, or begun anew."""

from contextlib import suppress

import pytest
import torch

from labels.conftest import FakeTeacher
from labels.test_record import ROWS, BreaksError, breaking
from understudy.errors import StoreError
from understudy.labels.place import LocalPlace
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


def test_a_finished_store_can_be_opened_while_a_lost_shard_is_made_again(
    write, tmp_path, content
):
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
