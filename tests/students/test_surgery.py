"""The chain of blocks of a network: found over all stages, and left out one by one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy import models
from understudy.errors import ModelError
from understudy.students.blocks.surgery import skipped, units

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


class Basic(nn.Module):
    """As torchvision writes it: the sum is made in place."""

    def __init__(self, before, filters, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride > 1 or before != filters:
            way = nn.Conv2d(before, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(way, nn.BatchNorm2d(filters))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Staged(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Basic(4, 4), Basic(4, 4))
        self.layer2 = nn.Sequential(Basic(4, 8, 2), Basic(8, 8), Basic(8, 8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.conv1(x))).mean((2, 3)))


class Convs(nn.Module):
    """A block whose own parts are repeated; its last part's answer is summed in place."""

    def __init__(self, filters):
        super().__init__()
        parts = (nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU()) for _ in "ab")
        self.layer = nn.Sequential(*parts)

    def forward(self, x):
        out = self.layer(x)
        out += x
        return F.relu(out)


class Named(nn.Module):
    """Blocks as attributes, the second of which the network reads a size from."""

    def __init__(self):
        super().__init__()
        for name in "abc":
            self.add_module(name, nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.c(self.b(self.a(x))) / self.b[0].in_features)


class Item(nn.Module):
    """A layer that answers with a tuple, the second item of which its network uses."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

    def forward(self, hidden_states, factor=1.0):
        return hidden_states + factor * self.inner(hidden_states), hidden_states.mean()


class Tuples(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleDict({name: Item() for name in ("one", "two", "three")})
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        for block in self.blocks.values():
            x, mean = block(hidden_states=x, factor=0.5)
        return self.head(x) + mean


def found(network, rows):
    return [(unit.path, unit.removable, unit.stage) for unit in units(network, rows)]


def test_the_blocks_of_a_resnet_are_those_of_all_stages():
    network = models.CifarResNet(channels=3, width=4, depth=14, base=2)
    assert found(network, IMAGES) == [
        ("stages.0.0", True, 0),
        ("stages.0.1", True, 0),
        ("stages.1.0", False, 1),
        ("stages.1.1", True, 1),
        ("stages.2.0", False, 2),
        ("stages.2.1", True, 2),
    ]


def test_stages_of_one_block_each_are_not_blocks_themselves():
    network = models.CifarResNet(channels=3, width=4, depth=8, base=2)
    assert [path for path, _, _ in found(network, IMAGES)] == [
        "stages.0.0",
        "stages.1.0",
        "stages.2.0",
    ]


def test_the_blocks_of_a_network_written_like_torchvision():
    assert found(Staged(), IMAGES) == [
        ("layer1.0", True, 0),
        ("layer1.1", True, 0),
        ("layer2.0", False, 1),
        ("layer2.1", True, 1),
        ("layer2.2", True, 1),
    ]


def test_a_residual_block_is_not_taken_apart_though_its_parts_are_repeated():
    stages = (nn.Sequential(Convs(4), Convs(4)) for _ in range(2))
    network = nn.Sequential(nn.Conv2d(3, 4, 1), *stages, nn.Flatten(), nn.Linear(256, 2))
    assert [path for path, _, _ in found(network, IMAGES)] == ["1.0", "1.1", "2.0", "2.1"]


def test_layers_of_a_transformer_are_the_blocks():
    size = {"height": 8, "image_width": 8, "patch": 4, "dim": 8, "heads": 2}
    network = models.VisionTransformer(channels=3, width=4, depth=3, **size)
    assert found(network, IMAGES) == [(f"blocks.{i}", True, 0) for i in range(3)]


def test_pytorchs_own_encoder():
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    network = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(18, 2))
    rows = torch.randn(2, 3, 6)
    assert found(network, rows) == [("0.layers.0", True, 0), ("0.layers.1", True, 0)]


def test_single_layers_are_blocks_where_there_are_no_others():
    network = models.MLP(inputs=6, width=6, hidden=[4, 4, 4])
    assert found(network, VECTORS) == [
        ("body.0", False, 0),
        ("body.3", True, 0),
        ("body.6", True, 0),
    ]


def test_the_layer_that_answers_is_no_block():
    network = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)))
    assert [path for path, _, _ in found(network, VECTORS)] == ["0", "1"]


def test_a_block_that_the_network_looks_into_cannot_go():
    assert found(Named(), VECTORS) == [("a", True, 0), ("b", False, 0), ("c", True, 0)]


def test_a_block_whose_other_answers_are_used_cannot_go():
    # Without the last block the mean of another one would be used.
    assert found(Tuples(), VECTORS) == [
        ("blocks.one", True, 0),
        ("blocks.two", True, 0),
        ("blocks.three", False, 0),
    ]


def test_a_skipped_block_passes_its_input_on_in_its_own_form():
    network = Tuples().eval()
    block = network.blocks["two"]
    with skipped(network, "blocks.two"), torch.no_grad():
        passed, mean = block(hidden_states=VECTORS, factor=0.5)
        skipping = network(VECTORS)
    assert torch.equal(passed, VECTORS)
    assert torch.equal(mean, VECTORS.mean())
    with torch.no_grad():
        assert not torch.equal(skipping, network(VECTORS))
        assert not torch.equal(block(VECTORS)[0], VECTORS)


def test_skipping_gives_what_was_given_though_the_block_writes_over_it():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True))
    rows = VECTORS.clone()
    with skipped(network, "0"):
        assert torch.equal(network[0](rows), VECTORS)


def test_a_skipped_layer_takes_what_is_behind_it_along():
    network = models.MLP(inputs=6, width=2, hidden=[4, 4])
    inner = torch.randn(3, 4)
    with skipped(network, "body.3"), torch.no_grad():
        assert torch.equal(network.body[3:](inner), inner)
    with torch.no_grad():
        assert (network.body[3:](inner) >= 0).all()


def test_the_network_and_the_random_state_are_left_as_found():
    network = Staged()
    network.layer1.eval()
    network.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    units(network, IMAGES)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.fc.weight.requires_grad
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_repeated_blocks_is_refused():
    with pytest.raises(ModelError, match="no repeated blocks to cut"):
        units(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), VECTORS)


def test_blocks_that_are_shared_already_are_refused():
    block = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    with pytest.raises(ModelError, match="shared blocks run several times"):
        units(nn.Sequential(block, block, block, nn.Linear(6, 2)), VECTORS)


@pytest.mark.parametrize("rows", [torch.zeros(2, 5), torch.zeros(0, 6), torch.zeros(6)])
def test_rows_of_another_shape_are_refused(rows):
    with pytest.raises(ModelError, match=r"rows"):
        units(models.MLP(inputs=6, width=2, hidden=[4, 4]), rows)


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match=r"no block `stages\.9`"), skipped(Staged(), "stages.9"):
        pass
