"""A student put together from taught candidates: what is offered, taught, loaded and chosen."""

import numpy as np
import pytest
import torch
from torch import nn

from understudy.blockwise import assembling
from understudy.blockwise.candidates import remembered
from understudy.blockwise.form import passing
from understudy.blockwise.learning import Learning
from understudy.blockwise.partition import partition
from understudy.blockwise.recombine import choose
from understudy.blockwise.replacements import Shared
from understudy.blockwise.scores import damages
from understudy.blockwise.sources import record
from understudy.blockwise.workers import distil_all
from understudy.errors import ModelError
from understudy.evaluate.cost import parameters

WIDTH = 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(WIDTH, 24)
        self.two = nn.Linear(24, WIDTH)

    def forward(self, stream):
        return stream + self.two(torch.relu(self.one(stream)))


class Net(nn.Module):
    """A small network with random weights, in the place of a teacher."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, rows):
        stream = self.stem(rows)
        for block in self.blocks:
            stream = block(stream)
        return self.head(stream)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """The whole way of a small network, once."""
    folder = tmp_path_factory.mktemp("blockwise")
    torch.manual_seed(0)
    network, inputs = Net().eval(), torch.randn(96, 6)
    parts = partition(network, inputs, by="block", measure=False)
    sources = record(network, parts, inputs, folder / "record", precision="float32")
    rows = assembling.Rows(
        learn=np.arange(64), validation=np.arange(64, 96), calibration=np.arange(16)
    )
    quick = remembered(lambda module, call, **_: float(parameters(module)) + 1.0)
    libraries = assembling.offer(
        network, parts, sources, rows.calibration, kinds=("narrower", "shared", "skip"),
        shares={"narrower": (0.5,)}, measure=quick,
    )  # fmt: skip
    offered = {block: one.candidates for block, one in libraries.items()}
    work = assembling.pairs(
        network, parts, offered, sources, rows,
        folder=folder / "local", learning=Learning(epochs=2, batch_size=16),
    )  # fmt: skip
    summaries = distil_all(work)
    modules = assembling.taught(network, parts, work, summaries)
    found = damages(network, parts, modules, inputs[64:], output="logits")
    return {
        "network": network, "inputs": inputs, "parts": parts, "offered": offered, "work": work,
        "summaries": summaries, "modules": modules, "found": found,
    }  # fmt: skip


def menu(ground):
    return assembling.menu(ground["network"], ground["parts"], ground["offered"], ground["found"])


def test_every_block_is_offered_itself_and_smaller_ones(ground):
    first, second, _ = ground["offered"].values()
    assert [one.label for one in first] == ["keep", "narrower_0.5", "skip"]
    assert [one.label for one in second] == ["keep", "narrower_0.5", "shared", "skip"]


def test_a_taught_candidate_is_loaded_as_it_learned(ground):
    pair = next(p for p in ground["work"] if p.candidate.label == "narrower_0.5")
    call = passing(ground["network"], ground["parts"], ground["inputs"][64:])[pair.block]
    with torch.no_grad():
        made = ground["modules"][pair.block]["narrower_0.5"](call.stream)
    told = passing(ground["network"], ground["parts"], ground["inputs"][:64])[pair.block]
    variance = told.gives.var(dim=0, correction=0)
    own = float(((made - call.gives) ** 2 / variance).mean())
    assert own == pytest.approx(ground["summaries"][pair.name]["loss"], rel=0.01)
    assert own < 1


def test_keeping_everything_is_the_network_itself(ground):
    labels = {block.name: "keep" for block in ground["parts"].blocks}
    made = assembling.stitched(ground["network"], ground["parts"], ground["modules"], labels)
    with torch.no_grad():
        assert torch.equal(made(ground["inputs"]), ground["network"](ground["inputs"]))
    assert all(p.requires_grad for p in made.parameters())


def test_a_choice_costs_what_was_predicted(ground):
    menu_ = menu(ground)
    whole = parameters(ground["network"])
    choice = choose(menu_, {"parameters": 0.6 * whole})
    made = assembling.stitched(ground["network"], ground["parts"], ground["modules"], choice.labels)
    assert parameters(made) == choice.costs["parameters"] <= 0.6 * whole
    weights = sum(t.numel() * t.element_size() for t in made.state_dict().values())
    assert weights == choice.costs["bytes"]
    with torch.no_grad():
        assert made(ground["inputs"]).shape == (96, 4)


def test_shared_weights_are_there_once_and_need_their_neighbour(ground):
    network, parts, modules = ground["network"], ground["parts"], ground["modules"]
    first, second = parts.blocks[0], parts.blocks[1]
    made = assembling.stitched(network, parts, modules, {second.name: "shared"})
    block = sum(p.numel() for p in Block().parameters())
    assert parameters(made) == parameters(network) - block + 2 * WIDTH
    option = next(o for o in menu(ground).options[second.name] if o.label == "shared")
    assert option.requires == ((first.name, "keep"),)
    inner = made.get_submodule(second.paths[0]).get_submodule("part")
    assert isinstance(inner, Shared)
    assert inner.neighbour.parts[0] is made.get_submodule(first.paths[0])


def test_a_choice_that_is_not_there_is_refused(ground):
    name = ground["parts"].blocks[0].name
    with pytest.raises(ModelError, match=r"no taught candidate `narower_0\.5`"):
        assembling.stitched(
            ground["network"], ground["parts"], ground["modules"], {name: "narower_0.5"}
        )


def test_only_failed_candidates_are_left_out(ground):
    name = next(p for p in ground["work"] if p.candidate.kind == "skip").name
    summaries = {**ground["summaries"], name: {"failed": "its loss is not finite", "steps": 1}}
    modules = assembling.taught(ground["network"], ground["parts"], ground["work"], summaries)
    assert sum(map(len, modules.values())) == sum(map(len, ground["modules"].values())) - 1


def test_working_memory_grows_with_the_batch(ground):
    block = ground["parts"].blocks[0]
    call = passing(ground["network"], ground["parts"], ground["inputs"][:8])[block.name]
    module = ground["modules"][block.name]["keep"]
    one = assembling.working_bytes(module, call)
    # the widest layer reads 24 numbers and gives 12, and the stream of 12 is kept beside it
    assert one == 4 * (24 + 12 + 12)
    assert assembling.working_bytes(module, call, batch=32) == 32 * one
