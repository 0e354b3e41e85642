"""Networks without a list of modules, traced into a chain of parts."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.blockwise.form import passing, piece, replaced
from understudy.blockwise.partition import partition
from understudy.blockwise.traced import as_chain
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
VECTORS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()


class Residual(nn.Module):
    """Layers as attributes, with a short skip connection around two of them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.one = nn.Conv2d(4, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        maps = F.relu(self.norm(self.stem(images)))
        maps = F.relu(maps + self.two(F.relu(self.one(maps))))
        return self.head(maps.mean((2, 3)).view(images.size(0), -1))


class LongSkip(nn.Module):
    """A U: what the first layer gives is joined to what the last but two gives."""

    def __init__(self, layers=8):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.count = layers
        for number in range(layers):
            self.add_module(f"layer{number}", nn.Conv2d(4, 4, 3, padding=1))
        self.merge = nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        first = F.relu(self.first(images))
        maps = first
        for number in range(self.count):
            maps = F.relu(getattr(self, f"layer{number}")(maps))
        maps = F.relu(self.merge(torch.cat([maps, first], 1)))
        return self.head(maps.mean((2, 3)))


class Shaped(nn.Module):
    """It branches on a shape, which only torch.export can follow."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, rows):
        if rows.shape[1] != 6:
            raise ValueError("six numbers")
        count = rows.shape[0]
        inner = F.gelu(self.norm(self.two(F.relu(self.one(rows)))))
        return self.head(inner.reshape(count, 2, 4).reshape(count, 8))


class Doubting(nn.Module):
    """It branches on a value."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, rows):
        rows = self.one(rows)
        if rows.sum() > 0:
            rows = F.relu(rows)
        return self.two(rows)


class Crossed(nn.Module):
    """Two streams from end to end."""

    def __init__(self):
        super().__init__()
        for name in ("one", "two", "three", "four"):
            self.add_module(name, nn.Linear(6, 6))

    def forward(self, rows):
        left, right = self.one(rows), self.two(rows)
        left, right = self.three(left) + right, self.four(right) - left
        return left * right


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.LSTM(3, 4, batch_first=True)
        self.two = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, rows):
        rows = rows.view(rows.size(0), 2, 3)
        rows, _ = self.one(rows)
        rows, _ = self.two(rows)
        return self.head(rows[:, -1])


class Masked(nn.Module):
    """Layers without a list, all of which use a mask that is made of the tokens."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(9, 6)
        self.positions = nn.Parameter(torch.randn(1, 5, 6))
        for name in ("one", "two", "three"):
            self.add_module(name, nn.Linear(6, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, tokens):
        mask = (tokens != 0).unsqueeze(-1)
        stream = self.tokens(tokens) + self.positions
        for layer in (self.one, self.two, self.three):
            stream = stream + torch.tanh(layer(stream)) * mask
        return self.head(stream.mean(1))


NETWORKS = [
    (Masked, torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [1, 0, 0, 0, 0], [2, 1, 2, 1, 0]])),
    (Residual, IMAGES),
    (LongSkip, IMAGES),
    (Shaped, VECTORS),
    (Recurrent, VECTORS),
]


def built(make):
    torch.manual_seed(0)
    return make().double().eval()


def answer(network, rows):
    with torch.no_grad():
        return network(rows)


@pytest.mark.parametrize(("make", "rows"), NETWORKS)
def test_the_chain_equals_the_network_exactly_for_any_number_of_rows(make, rows):
    network = built(make)
    chain = as_chain(network, rows)
    for count in (1, 3, 4):
        assert torch.equal(answer(chain, rows[:count]), answer(network, rows[:count]))


@pytest.mark.parametrize(("make", "rows"), NETWORKS)
def test_its_parts_are_blocks_and_put_together_equal_the_network(make, rows):
    network = built(make)
    chain = as_chain(network, rows)
    found = partition(chain, rows, measure=False)
    assert len(found.blocks) >= 2
    pieces = {block.name: piece(chain, block) for block in found.blocks}
    assert torch.equal(answer(replaced(chain, found, pieces), rows), answer(network, rows))
    calls = passing(chain, found, rows)
    for name, alone in pieces.items():
        call = calls[name]
        with torch.no_grad():
            assert torch.equal(alone(call.stream, *call.args, **call.kwargs), call.gives)


def test_a_residual_block_stays_in_one_part():
    chain = as_chain(built(Residual), IMAGES)
    convolutions = [
        sum(isinstance(module, nn.Conv2d) for module in part.modules()) for part in chain.parts
    ]
    assert convolutions == [1, 2, 0]
    assert chain.uses == ((), (), ())


def test_the_number_of_rows_is_asked_of_the_stream():
    chain = as_chain(built(Shaped), VECTORS)
    assert len(chain.parts) == 3
    assert not any(chain.uses)


def test_a_mask_is_made_again_in_every_part_that_uses_it():
    _, tokens = NETWORKS[0]
    chain = as_chain(built(Masked), tokens)
    assert chain.uses == ((), ("rows",), ("rows",), ("rows",), ())
    found = partition(chain, tokens, measure=False)
    # Tokens are no stream, and the layer that answers is no block.
    assert [block.paths for block in found.blocks] == [(f"parts.{n}",) for n in (1, 2, 3)]
    assert [block.parameters for block in found.blocks] == [42, 42, 42]


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_written_over_is_not_made_twice(times):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, rows):
            rows = rows.clone()
            rows += 1
            rows.mul_(2)
            first = self.two(torch.relu_(self.one(rows)))
            return self.head(first + rows if times == 2 else first)

    network = built(Writing)
    chain = as_chain(network, VECTORS)
    assert torch.equal(answer(chain, VECTORS), answer(network, VECTORS))


def test_a_long_skip_connection_is_carried():
    chain = as_chain(built(LongSkip), IMAGES)
    assert len(chain.parts) == 11
    (edge,) = chain.edges()
    assert edge == ("relu", 0, 8)
    found = partition(chain, IMAGES, measure=False)
    extras = [block.extras for block in found.blocks]
    assert extras == [(), *[("relu",)] * 8, ()]


def test_runs_of_parts_under_a_skip_connection_are_blocks():
    network = built(LongSkip)
    chain = as_chain(network, IMAGES)
    found = partition(chain, IMAGES, by=["parts.1", "parts.4", "parts.7"], measure=False)
    assert [len(block.paths) for block in found.blocks] == [3, 3, 4]
    pieces = {block.name: piece(chain, block) for block in found.blocks}
    assert torch.equal(answer(replaced(chain, found, pieces), IMAGES), answer(network, IMAGES))


def test_a_skip_connection_that_cannot_be_carried_is_refused_with_a_drawing():
    chain = as_chain(built(LongSkip), IMAGES)
    with pytest.raises(ModelError) as refused:
        partition(chain, IMAGES, by=["parts.0", "parts.4"], measure=False)
    assert (
        "  [parts.0]──[...]──[parts.3]─┊─[parts.4]──[...]──[parts.8]\n"
        "      └───────────────────────┊ relu ─────────────────┘\n"
        "  from parts.0 to parts.8, over the boundary parts.3 | parts.4\n"
    ) in str(refused.value)
    with pytest.raises(ModelError, match=r"(?s)into 1 runs.*from parts\.0 to parts\.8"):
        partition(chain, IMAGES, by="flops", parts=1, measure=False)


def test_nothing_is_carried_where_this_is_not_wanted():
    chain = as_chain(built(LongSkip), IMAGES, carry=False)
    assert not any(chain.uses)
    assert torch.equal(answer(chain, IMAGES), answer(built(LongSkip), IMAGES))


def test_the_parts_learn_like_the_network():
    network, rows = built(Residual).train(), IMAGES
    chain = as_chain(network, rows).train()
    assert sum(p.numel() for p in chain.parameters()) == sum(
        p.numel() for p in network.parameters()
    )
    for one in (network, chain):
        one(rows).square().sum().backward()
    theirs = {tuple(p.shape): p.grad for p in network.parameters()}
    for parameter in chain.parameters():
        assert parameter.grad is not None
    assert torch.equal(chain.parts[-1].graph.network.head.weight.grad, theirs[(3, 4)])
    assert torch.equal(chain.parts[0].graph.network.norm.running_mean, network.norm.running_mean)


def test_a_chain_is_exported_like_any_network(tmp_path):
    chain = as_chain(built(LongSkip), IMAGES)
    path = export_onnx(chain, IMAGES, tmp_path / "chain.onnx", metadata={})
    assert path.stat().st_size > 0


def test_control_flow_that_depends_on_data_is_refused_with_cause_and_remedy(capfd):
    with pytest.raises(ModelError) as refused:
        as_chain(built(Doubting), VECTORS)
    text = str(refused.value)
    assert "control flow" in text
    assert "data-dependent" in text
    assert "torch.where" in text
    assert capfd.readouterr() == ("", "")


def test_a_network_of_two_streams_is_refused_with_its_longest_edge():
    with pytest.raises(ModelError, match=r"(?s)no place inside.*from one to sub"):
        as_chain(built(Crossed), VECTORS)


def test_a_network_of_one_layer_is_refused():
    with pytest.raises(ModelError, match="one layer with weights only"):
        as_chain(nn.Linear(6, 2).double(), VECTORS)


def test_the_network_is_left_as_found():
    network = built(Residual).train()
    state = torch.get_rng_state()
    as_chain(network, IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in network.modules())
    assert torch.equal(network.norm.running_mean, torch.zeros(4).double())
