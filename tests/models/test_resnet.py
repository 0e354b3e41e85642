"""The residual network for small images."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.models import CifarResNet
from understudy.models.resnet import PaddedShortcut, ResidualBlock


def by_hand(channels, width, depth, base, shortcut):
    """Convolutions without bias, two numbers per normalised filter, one linear layer."""
    total, before = channels * base * 9 + 2 * base, base
    for filters in (base, 2 * base, 4 * base):
        for _ in range((depth - 2) // 6):
            total += (before + filters) * filters * 9 + 4 * filters
            if shortcut == "B" and before != filters:
                total += before * filters + 2 * filters
            before = filters
    return total + before * width + width


# The millions are those of the paper's table 6.
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_it_has_the_papers_number_of_parameters(depth, millions, count):
    with torch.device("meta"):
        network = CifarResNet(channels=3, width=10, depth=depth)
    assert count(network) == by_hand(3, 10, depth, 16, "A")
    assert round(count(network) / 1e6, 1 if depth == 110 else 2) == millions


@pytest.mark.parametrize(
    ("depth", "shortcut", "parameters"),
    [(20, "A", 269_722), (8, "A", 75_290), (8, "B", 78_042), (20, "B", 272_474)],
)
def test_its_size_is_what_paper_and_pencil_say(depth, shortcut, parameters, count):
    network = CifarResNet(channels=3, width=10, depth=depth, shortcut=shortcut)
    assert count(network) == by_hand(3, 10, depth, 16, shortcut) == parameters


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_its_depth_counts_the_layers_with_weights_on_the_main_path(depth):
    network = CifarResNet(channels=1, width=2, depth=depth, base=2, shortcut="A")
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert all(m.bias is None for m in layers if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (9, 7)])
def test_any_image_size_will_do_and_stages_halve_it_rounding_up(size, shortcut):
    network = CifarResNet(channels=1, width=3, depth=8, base=3, shortcut=shortcut).eval()
    shapes = []
    for stage in network.stages:
        stage.register_forward_hook(lambda _, __, maps: shapes.append(tuple(maps.shape)))
    assert network(torch.randn(2, 1, *size)).shape == (2, 3)
    height, width = size
    halved = (height + 1) // 2, (width + 1) // 2
    quartered = (halved[0] + 1) // 2, (halved[1] + 1) // 2
    assert shapes == [(2, 3, *size), (2, 6, *halved), (2, 12, *quartered)]


def test_option_a_takes_every_other_pixel_and_adds_channels_of_zeros():
    maps = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)
    answer = PaddedShortcut(stride=2, extra=3)(maps)
    assert answer.shape == (2, 6, 3, 2)
    assert torch.equal(answer[:, :3], maps[:, :, [0, 2, 4]][:, :, :, [0, 2]])
    assert not answer[:, 3:].any()


def test_option_b_is_a_normalised_1x1_convolution_wherever_the_shape_changes():
    network = CifarResNet(channels=1, width=2, depth=14, base=4, shortcut="B")
    kinds = [[type(block.shortcut) for block in stage] for stage in network.stages]
    same, grown = nn.Identity, nn.Sequential
    assert kinds == [[same, same], [grown, same], [grown, same]]
    convolution, normalisation = network.stages[1][0].shortcut
    assert convolution.weight.shape == (8, 4, 1, 1)
    assert convolution.stride == (2, 2)
    assert isinstance(normalisation, nn.BatchNorm2d)


def test_a_block_adds_its_shortcut_before_the_last_relu():
    block = ResidualBlock(2, 2, stride=1, shortcut=nn.Identity()).eval()
    nn.init.zeros_(block.norm2.weight)
    nn.init.constant_(block.norm2.bias, -1.0)
    maps = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(block(maps), F.relu(maps - 1))


def test_a_block_has_a_relu_between_its_convolutions():
    block = ResidualBlock(1, 1, stride=1, shortcut=nn.Identity()).eval()
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
        with torch.no_grad():
            convolution.weight[0, 0, 1, 1] = 1.0  # copies its maps
    maps = torch.tensor([[[[2.0, -3.0]]]])
    # -3 is dropped inside, and once more, with the shortcut, at the end.
    torch.testing.assert_close(block(maps), torch.tensor([[[[4.0, 0.0]]]]), rtol=1e-4, atol=0)
    nn.init.constant_(block.norm2.bias, 5.0)
    torch.testing.assert_close(block(maps), torch.tensor([[[[9.0, 2.0]]]]), rtol=1e-4, atol=0)


def test_convolutions_start_with_the_variance_of_he():
    torch.manual_seed(0)
    weights = CifarResNet(channels=3, width=10, depth=8).stages[2][0].conv2.weight
    assert weights.var().item() == pytest.approx(2 / (64 * 9), rel=0.05)
    assert weights.mean().abs() < 0.001


@pytest.mark.parametrize(
    ("depth", "remedy"), [(19, "14 or 20"), (9, "8 or 14"), (2, "8"), (0, "8"), (-4, "8")]
)
def test_a_depth_that_is_not_6n_plus_2_is_refused_with_its_neighbours(depth, remedy):
    law = rf"`depth == 6 \* n \+ 2` must hold .* but got depth={depth}: use {remedy}$"
    with pytest.raises(ValueError, match=law):
        CifarResNet(channels=3, width=10, depth=depth)


@pytest.mark.usefixtures("as_users_run_it")
def test_another_shortcut_is_refused():
    with pytest.raises(ValueError, match='`shortcut` must be "A" or "B", but got shortcut=\'C\''):
        CifarResNet(channels=3, width=10, depth=8, shortcut="C")
