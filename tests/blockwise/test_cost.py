"""What blocks cost: by formula, and by the clock."""

import math

import pytest
import torch
from torch import nn

from understudy.blockwise.cost import Alone, flops_of, measured, timed
from understudy.blockwise.form import Call, Partition, Piece, Rest, passing, piece
from understudy.blockwise.partition import partition
from understudy.errors import ExportError, ModelError

ROWS = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))


class Masked(nn.Module):
    """A layer that takes one mask per row, and a scale for all."""

    def __init__(self, size=6):
        super().__init__()
        self.layer = nn.Linear(6, size)

    def forward(self, stream, mask, *, scale=None):
        return self.layer(stream) * mask[..., None] * scale


def call():
    mask = torch.tensor([[1.0, 1, 1, 0, 0]]).repeat(4, 1)
    return Call(stream=ROWS, args=(mask,), kwargs={"scale": torch.tensor(2.0)}, gives=ROWS)


def test_other_arguments_are_those_of_the_first_row():
    module = Masked()
    alone = Alone(module, call())
    with torch.no_grad():
        assert torch.equal(alone(ROWS), module(ROWS, *call().args, **call().kwargs))
        assert torch.equal(alone(ROWS[:1]), alone(ROWS)[:1])


def test_operations_of_products_and_of_recurrent_layers():
    # 5 positions; 7 numbers from 6.
    assert flops_of(Masked(7), call()) == 2 * 5 * 6 * 7
    rows = Call(stream=ROWS, gives=ROWS)
    # Both directions, 3 gates of 4, from 6 numbers and 4 states; then a matrix.
    both = Piece([nn.GRU(6, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)])
    assert flops_of(both, rows) == 2 * 5 * (2 * 12 * (6 + 4) + 8 * 3)


def test_a_candidate_that_does_not_take_its_call_is_refused():
    with pytest.raises(ModelError, match="does not take what its block is given"):
        flops_of(nn.Linear(7, 6), Call(stream=ROWS, gives=ROWS))


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_larger_candidate_takes_longer(runtime):
    small, large = (nn.Sequential(nn.Linear(6, size), nn.Linear(size, 6)) for size in (4, 20_000))
    given = Call(stream=ROWS, gives=ROWS)
    times = [measured(one, given, batch=8, seconds=0.05, runtime=runtime) for one in (small, large)]
    assert 0 < 3 * times[0] < times[1]


def test_a_mask_is_part_of_what_is_measured():
    assert measured(Masked(), call(), batch=2, seconds=0.02) > 0


def test_what_has_no_onnx_form_is_measured_in_torch_only():
    class Doubting(nn.Module):
        def forward(self, stream):
            return stream if stream.sum() > 0 else -stream

    given = Call(stream=ROWS, gives=ROWS)
    with pytest.raises(ExportError, match="cannot be exported"):
        measured(Doubting(), given, seconds=0.02)
    assert measured(Doubting(), given, seconds=0.02, runtime="torch") > 0


def test_a_partition_is_timed_as_it_is_deployed():
    torch.manual_seed(0)
    # Wide enough that each block takes longer than the call around it, whatever else is running.
    layers = [nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 800), nn.ReLU(), nn.Linear(800, 700)]
    network = nn.Sequential(*layers).eval()
    rows = torch.randn(4, 512)
    found = partition(network, rows, measure=False)
    after = timed(network, found, rows, batch=2, seconds=0.02)
    assert [block.name for block in after.blocks] == [block.name for block in found.blocks]
    assert all(block.ms is not None and block.ms > 0 for block in after.blocks)
    assert after.rest.ms is not None
    assert math.isfinite(after.rest.ms)
    calls = passing(network, found, rows)
    for block in found.blocks:
        assert flops_of(piece(network, block), calls[block.name]) == block.flops


def test_time_by_itself_becomes_time_inside_the_network():
    rest = Rest(parameters=0, flops=0, ms=0.1, call_ms=0.02, pace=1.5)
    parts = Partition(blocks=(), rest=rest)
    assert parts.inside(0.12) == pytest.approx(1.5 * 0.1)
    assert parts.inside(0.01) == 0.0
    assert Partition.from_data(parts.to_data()) == parts
    # One that nothing was measured of changes nothing.
    assert Partition(blocks=(), rest=Rest(parameters=0, flops=0)).inside(0.3) == 0.3


def test_a_factor_makes_blocks_by_themselves_into_blocks_inside(monkeypatch):
    network = nn.Sequential(
        nn.Linear(6, 8), *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(2)),
        nn.Linear(8, 4),
    ).eval()  # fmt: skip
    rows = ROWS[:, 0]
    found = partition(network, rows, by=["1", "2", "3"], measure=False)
    clock = iter([10.0, 1.5, 2.5, 1.0, 0.5, 4.0])
    monkeypatch.setattr("understudy.blockwise.cost.measured", lambda *_, **__: next(clock))
    # The whole, the three blocks alone, a call that does nothing, and the network without the two
    # blocks that can be left out: these take 6 inside, and 1 and 2 beyond their calls alone.
    told = timed(network, found, rows)
    assert (told.rest.call_ms, told.rest.pace) == (0.5, 2.0)
    assert [block.ms for block in told.blocks] == [2.0, 4.0, 1.0]
    assert told.rest.ms == 3.0
    assert told.inside(1.5) == 2.0
