"""Libraries of real blocks: what is in them runs, costs what it says, and is always the same."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.blockwise.candidates import KINDS, candidates, library, remembered
from understudy.blockwise.form import Piece, passing, piece
from understudy.blockwise.making import make
from understudy.blockwise.partition import partition
from understudy.blockwise.replacements import Shared, SlimRecurrent
from understudy.blockwise.words import Call, Candidate
from understudy.errors import ExportError, ModelError
from understudy.models import CifarResNet, VisionTransformer

pytest.importorskip("torch_pruning")


def weights(module, call, *, threads, batch):
    """In the place of a clock: thousands of parameters."""
    return sum(p.numel() for p in module.parameters()) / 1000


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Tagger(nn.Module):
    """A recurrent network over tokens."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, rows):
        return self.head(self.lstm(rows)[0].mean(dim=1))


def residual():
    torch.manual_seed(0)
    network = CifarResNet(channels=3, width=5, depth=14, base=4)
    return network, partition(network, draws(8, 3, 8, 8)), draws(8, 3, 8, 8)


def transformer():
    torch.manual_seed(0)
    network = VisionTransformer(
        channels=1, height=8, image_width=8, width=5, patch=4, dim=16, depth=2, heads=4
    )
    return network, partition(network, draws(8, 1, 8, 8)), draws(8, 1, 8, 8)


def material(made, number):
    network, parts, rows = made()
    block = parts.blocks[number]
    return piece(network, block), passing(network, parts, rows)[block.name]


def recurrent():
    torch.manual_seed(0)
    block, rows = Piece([Tagger().lstm]).eval(), draws(8, 5, 6)
    with torch.no_grad():
        return block, Call(stream=rows, gives=block(rows))


def mlp():
    torch.manual_seed(0)
    layers = [
        nn.Linear(6, 12),
        nn.ReLU(),
        nn.Linear(12, 12),
        nn.ReLU(),
        nn.Linear(12, 12),
        nn.ReLU(),
    ]
    block, rows = Piece(layers).eval(), draws(32, 6)
    with torch.no_grad():
        return block, Call(stream=rows, gives=block(rows))


BLOCKS = {
    "residual": lambda: material(residual, 1),
    "halving": lambda: material(residual, 2),
    "transformer": lambda: material(transformer, 0),
    "recurrent": recurrent,
    "mlp": mlp,
}
FOUND = {
    "residual": {
        "keep", "narrower_0.75", "narrower_0.5", "narrower_0.25", "low_rank_0.75", "low_rank_0.5",
        "separable", "grouped_2", "shared", "skip", "linear",
    },
    "halving": {
        "keep", "narrower_0.75", "narrower_0.5", "narrower_0.25", "low_rank_0.75", "low_rank_0.5",
        "low_rank_0.25", "separable", "grouped_2", "skip",
    },
    "transformer": {
        "keep", "narrower_0.75", "narrower_0.5", "narrower_0.25", "low_rank_0.75", "low_rank_0.5",
        "low_rank_0.25", "fewer_heads_0.5", "grouped_2", "linear_attention", "shared", "skip",
        "linear",
    },
    "recurrent": {"keep", "narrower_0.75", "narrower_0.5", "narrower_0.25", "skip"},
    "mlp": {
        "keep", "narrower_0.75", "narrower_0.5", "narrower_0.25", "low_rank_0.75", "low_rank_0.5",
        "fewer_2_of_3", "skip",
    },
}  # fmt: skip
NEIGHBOURS = {"residual", "transformer"}


@pytest.fixture(scope="module")
def libraries():
    made = {}
    for name, block in BLOCKS.items():
        part, call = block()
        other = ("before", copy.deepcopy(part)) if name in NEIGHBOURS else None
        made[name] = part, call, library(part, call, neighbour=other, measure=weights)
    return made


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_has_the_candidates_that_fit_it_and_the_others_are_left_out_with_a_reason(
    name, libraries
):
    _, _, found = libraries[name]
    labels = [one.label for one in found.candidates]
    assert set(labels) == FOUND[name], found.left
    kinds = {one.kind for one in found.candidates}
    for kind in set(KINDS) - kinds - {"custom"}:
        reasons = [why for label, why in found.left.items() if label.startswith(kind)]
        assert reasons, kind
        assert all(len(why) > 10 for why in reasons)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_candidate_is_rebuilt_from_its_data_alone_and_costs_what_it_says(name, libraries):
    part, call, found = libraries[name]
    before = {key: value.clone() for key, value in part.state_dict().items()}
    state = torch.get_rng_state()
    for one in found.candidates:
        read = Candidate.from_data(json.loads(json.dumps(one.to_data())))
        first, second = (make(c, part, call, 3, neighbour=part) for c in (one, read))
        for key, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[key]), (one.label, key)
        with torch.no_grad():
            made = first(call.stream, *call.args, **call.kwargs)
        assert made.shape == call.gives.shape
        assert one.ms is not None
        if one.kind == "shared":
            continue
        assert one.parameters == sum(p.numel() for p in first.parameters())
        assert one.bytes >= 4 * one.parameters
        assert all(p.requires_grad for p in first.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in part.state_dict().items())


@pytest.mark.parametrize("name", BLOCKS)
def test_candidates_are_cheaper_than_the_block_in_something(name, libraries):
    _, _, found = libraries[name]
    keep = next(one for one in found.candidates if one.kind == "keep")
    for one in found.candidates:
        if one is not keep:
            assert one.parameters < keep.parameters or one.flops < keep.flops
    sizes = [one.parameters for one in found.candidates if one.kind == "narrower"]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_keep_is_the_block_and_fewer_drops_what_is_missed_least(libraries):
    part, call, found = libraries["mlp"]
    keep = next(one for one in found.candidates if one.kind == "keep")
    assert torch.equal(make(keep, part, call)(call.stream), call.gives)
    fewer = next(one for one in found.candidates if one.kind == "fewer")
    # The first layer changes the width, and cannot go.
    assert fewer.settings["drop"] in ([2, 3], [4, 5])
    other = [4, 5] if fewer.settings["drop"] == [2, 3] else [2, 3]

    def missed(drop):
        layers = [layer for place, layer in enumerate(part.parts) if place not in drop]
        return (Piece(layers)(call.stream) - call.gives).square().sum()

    assert missed(fewer.settings["drop"]) < missed(other)


def test_blocks_within_a_block_are_units_too():
    network, parts, rows = residual()
    stage = Piece([nn.Sequential(*(copy.deepcopy(network.stages[0][n]) for n in (0, 1, 1)))]).eval()
    name = parts.blocks[0].name
    stream = passing(network, parts, rows)[name].stream
    with torch.no_grad():
        call = Call(stream=stream, gives=stage(stream))
    found = library(stage, call, kinds=("fewer",), measure=weights)
    (fewer,) = found.candidates
    assert fewer.label == "fewer_2_of_3"
    assert len(make(fewer, stage, call).parts[0]) == 2


def test_a_shared_block_counts_only_its_own_numbers(libraries):
    part, call, found = libraries["transformer"]
    shared = next(one for one in found.candidates if one.kind == "shared")
    assert (shared.parameters, shared.bytes) == (32, 128)
    assert shared.settings == {"neighbour": "before"}
    assert "before" in shared.note
    assert isinstance(make(shared, part, call, neighbour=part), Shared)
    with pytest.raises(ModelError, match="needs its `neighbour`"):
        make(shared, part, call)


def test_a_recurrent_block_is_narrower_inside_and_as_wide_outside(libraries):
    part, call, found = libraries["recurrent"]
    half = next(one for one in found.candidates if one.label == "narrower_0.5")
    made = make(half, part, call)
    assert isinstance(made.parts[0], SlimRecurrent)
    assert made.parts[0].inner.hidden_size == 4
    keep = next(one for one in found.candidates if one.kind == "keep")
    # Two directions, four gates, six inputs and eight states; five steps.
    assert keep.flops == 2 * 5 * 2 * 4 * 8 * (6 + 8)
    # The projection works on every step, and on both final states.
    assert half.flops == 2 * 2 * (5 * (4 * 4 * (6 + 4) + 4 * 8) + 2 * 4 * 8)


def test_ranks_can_be_chosen_by_energy():
    part, call = mlp()
    found = library(part, call, kinds=("low_rank",), shares={"energy": (0.6,)}, measure=weights)
    assert [one.label for one in found.candidates] == ["low_rank_energy_0.6"]


def test_a_frozen_teachers_candidates_learn_all_the_same():
    part, call = mlp()
    part.requires_grad_(False)
    found = candidates(part, call, kinds=("narrower", "linear"), measure=weights)
    for one in found:
        assert all(p.requires_grad for p in make(one, part, call).parameters())


HERE = str(Path(__file__).parent)


def own(name, **arguments):
    return {"target": f"factory.py:{name}", "folder": HERE, "arguments": arguments}


def test_a_users_own_candidate_is_in_the_library():
    block = Piece([nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 6)]).eval()
    stream = draws(8, 6)
    with torch.no_grad():
        call = Call(stream=stream, gives=block(stream))
    entries = {"mine": own("around"), "bad": own("broken"), "odd": own("odd"), "no": own("none")}
    found = library(block, call, kinds=("custom",), custom=entries, measure=weights)
    assert [(one.kind, one.label, one.parameters) for one in found.candidates] == [
        ("custom", "mine", 42)
    ]
    assert "ZeroDivisionError: no such thing (factory.py" in found.left["bad"]
    assert "must return an nn.Module, but gave Tensor" in found.left["odd"]
    assert "has no `none`" in found.left["no"]
    (mine,) = found.candidates
    first, second, third = (make(mine, block, call, seed) for seed in (0, 0, 1))
    assert torch.equal(first.small.weight, second.small.weight)
    assert not torch.equal(first.small.weight, third.small.weight)


@pytest.mark.parametrize(("settings", "law"), [
    ({"kinds": ("narow",)}, "no kind of candidate is called `narow`: did you mean `narrower`?"),
    ({"shares": {"narrow": (0.5,)}}, "`shares` has no `narrow`"),
    ({"shares": {"narrower": (1.5,)}}, "`shares` of `narrower` must be above 0 and below 1"),
    ({"shares": {"grouped": (1.5,)}}, "`shares` of `grouped` must be whole numbers from 2"),
])  # fmt: skip
def test_unknown_kinds_and_shares_are_refused(settings, law):
    part, call = mlp()
    with pytest.raises(ModelError) as error:
        library(part, call, measure=weights, **settings)
    assert law in str(error.value)


def test_an_unknown_kind_is_not_made():
    part, call = mlp()
    odd = Candidate(kind="kep", label="odd", parameters=0, bytes=0, ms=None, flops=0)
    with pytest.raises(ModelError, match="did you mean `keep`"):
        make(odd, part, call)


def test_latency_is_measured_as_it_is_deployed():
    block = Piece([nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)]).eval()
    stream = draws(4, 64)
    with torch.no_grad():
        call = Call(stream=stream, gives=block(stream))
    found = candidates(block, call, kinds=("keep", "linear"), batch=2)
    assert all(one.ms is not None and 0 < one.ms < 1000 for one in found)


def test_what_looks_alike_is_measured_once_and_what_cannot_be_exported_is_kept_with_a_note():
    seen = []

    def measure(module, call, *, threads, batch):
        seen.append((threads, batch))
        if isinstance(module, nn.Linear):
            raise ExportError("no such operator")
        return 1.0

    look = remembered(measure)
    stream = draws(4, 6)
    call = Call(stream=stream, gives=stream)
    for width in (6, 6, 7):
        look(nn.Sequential(nn.Linear(6, width)), call, threads=1, batch=1)
    look(nn.Sequential(nn.Linear(6, 6)), call, threads=1, batch=2)
    assert seen == [(1, 1), (1, 1), (1, 2)]
    part, call = mlp()

    def never(module, call, *, threads, batch):
        raise ExportError("no such operator")

    (keep,) = candidates(part, call, kinds=("keep",), measure=never)
    assert keep.ms is None
    assert keep.note == "its latency is not known (no such operator)"
