"""Batch norms that become part of the layer before them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.teachers.backends.folding import NORMS, fold


def seen(network, rows):
    """The network, after its norms have seen rows that are not standard ones."""
    network.train()
    for _ in range(5):
        network(3 * rows + 1)
    return network.eval()


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Calls(nn.Module):
    """A convolution and a norm, as `forward` uses them."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self._forward = forward

    def forward(self, rows):
        return self._forward(self, rows)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)), (8, 2, 5)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)), (8, 2, 5, 5)),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)), (8, 2, 5, 5)),
        (nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)), (8, 2, 3, 3, 3)),
        (nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU()), (8, 2)),
    ],
)
def test_a_folded_network_answers_alike_without_norms(network, shape):
    rows = drawn(*shape)
    expected = seen(network, rows)(rows)
    folded, count = fold(network)
    assert count == 1
    assert not any(isinstance(part, NORMS) for part in folded.modules())
    torch.testing.assert_close(folded(rows), expected)


def test_every_norm_of_a_residual_block_is_folded():
    def forward(self, rows):
        return F.relu(self.norm(self.conv(rows)) + rows)

    network, rows = Calls(forward), drawn(4, 2, 3, 3)
    expected = seen(network, rows)(rows)
    folded, count = fold(network)
    assert count == 1
    torch.testing.assert_close(folded(rows), expected)


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda self, x: self.norm(y := self.conv(x)) + y, id="read by another"),
        pytest.param(lambda self, x: self.norm(self.conv(self.conv(x))), id="called twice"),
        pytest.param(
            lambda self, x: self.norm(self.conv(x)) + self.other(self.conv(x)), id="two norms"
        ),
        pytest.param(lambda self, x: self.conv(self.norm(x)), id="the norm comes first"),
        pytest.param(lambda self, x: self.norm(F.relu(self.conv(x))), id="something between"),
    ],
)
def test_where_folding_would_be_wrong_nothing_is_folded(forward):
    network, rows = Calls(forward), drawn(4, 2, 3, 3)
    expected = seen(network, rows)(rows)
    folded, count = fold(network)
    assert count == 0
    assert torch.equal(folded(rows), expected)


def test_a_norm_without_running_statistics_stays():
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert fold(network.eval())[1] == 0


def test_a_class_derived_from_a_layer_is_left_alone():
    class Doubled(nn.Conv2d):
        def forward(self, rows):
            return 2 * super().forward(rows)

    rows = drawn(4, 2, 3, 3)
    network = nn.Sequential(Doubled(2, 2, 1), nn.BatchNorm2d(2))
    expected = seen(network, rows)(rows)
    folded, _ = fold(network)
    torch.testing.assert_close(folded(rows), expected)
