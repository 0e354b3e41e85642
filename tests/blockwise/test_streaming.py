"""A chain that is recorded block by block is the network's, and only one block is loaded."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from understudy.blockwise import streaming
from understudy.blockwise.form import piece
from understudy.blockwise.opening import Shelved, shelve
from understudy.blockwise.partition import partition
from understudy.blockwise.sources import record
from understudy.errors import DataError, ModelError


@pytest.fixture
def chain(tmp_path):
    """Random weights and rows: three blocks, of which the first changes the width."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.Tanh()),
        nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)),
        nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)),
    ).eval()
    rows = torch.randn(11, 4)
    parts = partition(network, rows, by=["0", "1", "2"], measure=False)
    blocks = {b.name: shelve(piece(network, b), tmp_path / f"{b.name}.safetensors")
              for b in parts.blocks}  # fmt: skip
    return network, parts, rows, blocks


def test_it_records_what_the_whole_network_would(chain, tmp_path):
    network, parts, rows, blocks = chain
    whole = record(network, parts, rows, tmp_path / "a", precision="float32")
    found = streaming.record_chain(blocks, rows, tmp_path / "b", batch_size=4, precision="float32")
    assert list(found) == [block.name for block in parts.blocks]
    index = np.array([10, 2, 2])
    for name, source in found.items():
        assert len(source) == 11
        for field in ("stream", "gives"):
            made, goal = getattr(source(index), field), getattr(whole[name](index), field)
            assert torch.allclose(made, goal, atol=1e-6)


def test_answers_are_to_the_very_inputs_beside_them_and_are_there_once(chain, tmp_path):
    network, parts, rows, blocks = chain
    found = streaming.record_chain(blocks, rows, tmp_path / "b")
    for block in parts.blocks:
        call = found[block.name](np.arange(11))
        with torch.no_grad():
            made = piece(network, block)(call.stream)
        assert torch.equal(made.half().float(), call.gives)
        assert torch.equal(call.stream.half().float(), call.stream)
    arrays = sorted(path.name for path in (tmp_path / "b").rglob("*.npy"))
    first, *_ = names = [block.name for block in parts.blocks]
    assert arrays == sorted([f"{first}.stream.npy", *(f"{name}.gives.npy" for name in names)])


def test_one_block_is_loaded_at_a_time_and_none_that_is_recorded(chain, tmp_path, monkeypatch):
    _, _, rows, blocks = chain
    held, most = [], []

    class Watched(nn.Module):
        def __init__(self, own):
            super().__init__()
            self.own = own
            held.append(1)
            most.append(len(held))

        def forward(self, stream):
            return self.own(stream)

        def __del__(self):
            held.pop()

    load = Shelved.module
    monkeypatch.setattr(Shelved, "module", lambda shelved: Watched(load(shelved)))
    before = streaming.record_chain(blocks, rows, tmp_path / "b")
    # The one that is let go is still there while the next one comes.
    assert len(most) == 3
    assert max(most) == 1
    again = streaming.record_chain(blocks, rows, tmp_path / "b")
    assert len(most) == 3
    assert [s.fingerprint for s in again.values()] == [s.fingerprint for s in before.values()]


def test_another_block_or_other_rows_are_recorded_anew_from_there_on(chain, tmp_path):
    network, parts, rows, blocks = chain
    before = streaming.record_chain(blocks, rows, tmp_path / "b")
    told = [source.fingerprint for source in before.values()]
    other = copy.deepcopy(piece(network, parts.blocks[1]))
    with torch.no_grad():
        other.parts[0][0].weight.mul_(2)
    name = parts.blocks[1].name
    changed = {**blocks, name: shelve(other, tmp_path / "other.safetensors")}
    after = streaming.record_chain(changed, rows, tmp_path / "b")
    same = [a.fingerprint == b for a, b in zip(after.values(), told, strict=True)]
    assert same == [True, False, False]
    fresh = streaming.record_chain(blocks, 2 * rows, tmp_path / "b")
    assert not {source.fingerprint for source in fresh.values()} & set(told)


def test_what_cannot_be_recorded_is_said(chain, tmp_path):
    _, _, rows, blocks = chain
    with pytest.raises(DataError, match=r"at most 65504 in float16.*use precision: float32"):
        streaming.record_chain(blocks, 1e6 * rows, tmp_path / "b")
    first, *_, last = blocks
    gap = {last: blocks[last], first: blocks[first]}
    with pytest.raises(ModelError, match=rf"block `{last}` does not take \[11, 4\], what comes"):
        streaming.record_chain(gap, rows, tmp_path / "c")
