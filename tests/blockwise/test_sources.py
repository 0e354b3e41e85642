"""Recorded and recomputed calls of blocks are those of a forward pass, and are there once."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from understudy.blockwise.form import passing, piece
from understudy.blockwise.learning import Learning
from understudy.blockwise.local import distil_block
from understudy.blockwise.partition import partition
from understudy.blockwise.sources import Recomputed, Recorded, ceiling, record
from understudy.errors import DataError, ModelError, RunError
from understudy.models import CifarResNet


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    network = CifarResNet(channels=3, width=5, depth=8, base=4).eval()
    rows = draws(20, 3, 8, 8)
    return network, partition(network, rows), rows


def test_recorded_and_recomputed_rows_are_those_of_a_forward_pass(residual, tmp_path):
    network, parts, rows = residual
    calls = passing(network, parts, rows)
    exact = record(network, parts, rows, tmp_path / "a", batch_size=7, precision="float32")
    half = record(network, parts, rows, tmp_path / "b", batch_size=7, at_once=1)
    index = np.array([19, 3, 3])
    for block in parts.blocks:
        call = calls[block.name]
        again = Recomputed(network, parts, block.name, rows)
        for source, close in ((exact[block.name], 1e-6), (half[block.name], 2e-3), (again, 1e-6)):
            assert len(source) == 20
            found = source(index)
            for name in ("stream", "gives"):
                goal, value = getattr(call, name)[index], getattr(found, name)
                assert value.dtype == torch.float32
                assert torch.allclose(value, goal, rtol=close, atol=close)


def test_what_one_block_gives_and_the_next_takes_is_there_once(residual, tmp_path):
    network, parts, rows = residual
    record(network, parts, rows, tmp_path / "a", batch_size=8)
    arrays = sorted(path.name for path in (tmp_path / "a").glob("*.npy"))
    first, *others = [block.name for block in parts.blocks]
    assert arrays == sorted([f"{first}.stream.npy", *(f"{b.name}.gives.npy" for b in parts.blocks)])
    assert others


def test_a_recording_is_made_once_and_made_anew_for_other_weights(residual, tmp_path):
    network, parts, rows = residual
    found = record(network, parts, rows, tmp_path / "a")
    name = parts.blocks[0].name
    before = found[name].fingerprint
    stamp = (tmp_path / "a" / "stage.json").stat().st_mtime_ns
    record(network, parts, rows, tmp_path / "a")
    assert (tmp_path / "a" / "stage.json").stat().st_mtime_ns == stamp
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.stem[0].weight.mul_(2)
    assert record(other, parts, rows, tmp_path / "a")[name].fingerprint != before


def test_a_recorded_source_travels_as_a_path(residual, tmp_path):
    network, parts, rows = residual
    found = record(network, parts, rows, tmp_path / "a")[parts.blocks[1].name]
    found(np.arange(2))
    data = pickle.dumps(found)
    assert len(data) < 1000
    assert torch.equal(pickle.loads(data)(np.arange(2)).stream, found(np.arange(2)).stream)


class Masked(nn.Module):
    """Two blocks that get a mask per row, a table for all rows, and a plain setting."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(4, 2)

    def forward(self, rows):
        mask = (rows[..., 0] > 0)[:, None, None, :]
        table = torch.arange(20.0).reshape(1, 5, 4)
        tokens = rows
        for block in self.blocks:
            tokens = block(tokens, mask, tables=(table, table[:, :1]), scale=0.5, cache=object())
        return self.head(tokens.mean(dim=1))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, tokens, mask=None, tables=None, scale=1.0, cache=None):
        mixed = self.layer(tokens) * mask[:, 0, 0, :, None] + tables[0]
        return tokens + scale * mixed


def test_masks_tables_and_settings_are_recorded_with_the_stream(tmp_path):
    torch.manual_seed(0)
    network, rows = Masked().eval(), draws(11, 5, 4)
    # In the first batch the rows' masks are all the same.
    rows[:4, :, 0] = 1.0
    parts = partition(network, rows)
    calls = passing(network, parts, rows)
    found = record(network, parts, rows, tmp_path / "a", batch_size=4, precision="float32")
    index = np.array([10, 0])
    for block in parts.blocks:
        call, goal = found[block.name](index), calls[block.name]
        assert torch.equal(call.args[0], goal.args[0][index])
        assert torch.equal(call.kwargs["tables"][0], goal.kwargs["tables"][0])
        assert isinstance(call.kwargs["tables"], tuple)
        assert (call.kwargs["scale"], call.kwargs["cache"]) == (0.5, None)
        alone = piece(network, block).eval()
        with torch.no_grad():
            made = alone(call.stream, *call.args, **call.kwargs)
        assert torch.allclose(made, call.gives, atol=1e-6)
    masks = list((tmp_path / "a").glob("*argument-0.npy"))
    assert len(masks) == 1


def test_numbers_too_large_for_float16_are_refused(residual, tmp_path):
    network, parts, rows = residual
    with pytest.raises(DataError, match=r"at most 65504 in float16.*use precision: float32"):
        record(network, parts, 1e6 * rows, tmp_path / "a")


def test_a_source_that_is_not_there_says_so(residual, tmp_path):
    network, parts, rows = residual
    with pytest.raises(RunError, match=r"cannot be read"):
        Recorded(tmp_path, "nothing")(np.arange(1))
    with pytest.raises(ModelError, match="there is no block `nothing`"):
        Recomputed(network, parts, "nothing", rows)


def test_the_ceiling_counts_what_is_held_at_once(residual):
    _, parts, _ = residual
    sizes = [4 * (math.prod(b.takes) + math.prod(b.gives)) for b in parts.blocks]
    assert ceiling(parts, batch_size=8) == 8 * (sum(sizes) + max(sizes))
    assert ceiling(parts, batch_size=8, at_once=1) == 8 * 2 * max(sizes)


def test_recorded_and_recomputed_rows_teach_the_same(residual, tmp_path):
    network, parts, rows = residual
    block = parts.blocks[1]
    recorded = record(network, parts, rows, tmp_path / "a", precision="float32")[block.name]
    again = Recomputed(network, parts, block.name, rows)
    losses = []
    for name, source in (("b", recorded), ("c", again)):
        alone = piece(network, block)
        module = copy.deepcopy(alone)
        with torch.no_grad():
            module.parts[0].conv1.weight.mul_(0.5)
        told = distil_block(
            alone, module, source, rows=np.arange(16), validation=np.arange(16, 20),
            folder=tmp_path / name, learning=Learning(epochs=2, batch_size=8),
        )  # fmt: skip
        losses.append(told["loss"])
    assert math.isclose(*losses, rel_tol=1e-3)
