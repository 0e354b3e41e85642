"""Margins of a teacher's layers, from the batch norm that they end with."""

import pytest
import torch
from torch import nn

from understudy import models
from understudy.errors import ModelError
from understudy.features.margins import margins


def test_a_margin_is_the_mean_of_the_negative_part_by_a_large_sample():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 0.5, 2.0]))
        norm.bias.copy_(torch.tensor([0.0, -1.0, 1.0]))
    net = nn.Sequential(nn.Conv2d(1, 3, 3), norm)
    found = margins(net, "1")
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(200_000, 3, generator=generator) * norm.weight + norm.bias
    negative = drawn.clamp(max=0).sum(dim=0) / (drawn < 0).sum(dim=0)
    torch.testing.assert_close(found, negative.detach(), rtol=0.02, atol=0.01)
    assert (found < 0).all()
    assert not found.requires_grad


def test_of_a_stage_it_is_the_last_batch_norm_before_the_sum():
    net = models.CATALOGUE["resnet"](channels=1, width=10, depth=14, base=4)
    norms = [m for m in net.stages[1].modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[-1].bias.add_(3.0)
    assert torch.equal(margins(net, "stages.1"), margins(net, "stages.1.1.norm2"))
    assert not torch.equal(margins(net, "stages.1"), margins(net, "stages.1.0.norm2"))


@pytest.mark.parametrize("spot", ["0", "1"])
def test_without_a_batch_norm_that_learns_there_is_no_margin(spot):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, affine=False))
    with pytest.raises(ModelError, match=f"`{spot}` holds none: name a block.*or use `hint`"):
        margins(net, spot)


def test_a_path_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="no module `stage`"):
        margins(nn.Sequential(nn.BatchNorm2d(3)), "stage")
