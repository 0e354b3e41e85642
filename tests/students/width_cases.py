"""Networks that are narrowed, and what a narrowed network must be equal to."""

import copy

import torch
from torch import nn

from understudy.models import MLP, CifarResNet, ConvNet, VisionTransformer
from understudy.students.width.criteria import axes


class Plain(nn.Module):
    """A user's residual network: depthwise, grouped and pointwise convolutions, odd norms."""

    def __init__(self, groups=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Sequential(
            nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16, affine=False), nn.PReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.InstanceNorm2d(16), nn.PReLU(16),
            nn.Conv2d(16, 8, 1),
        )  # fmt: skip
        self.wide = nn.Sequential(
            nn.Conv2d(8, 12, 1), nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1, groups=groups), nn.ReLU(), nn.Conv2d(16, 8, 1),
        )  # fmt: skip
        self.dense = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(14, 5)

    def forward(self, rows):
        maps = torch.relu(self.stem(rows))
        maps = maps + self.deep(maps)
        maps = torch.relu(maps + self.wide(maps))
        both = torch.cat([maps, torch.relu(self.dense(maps))], dim=1)
        return self.head(both.mean(dim=(2, 3)))


IMAGE = (3, 12, 12)
NETWORKS = {
    "padded": lambda: CifarResNet(channels=3, width=5, depth=14, base=8),
    "projected": lambda: CifarResNet(channels=3, width=5, depth=8, base=8, shortcut="B"),
    "convnet": lambda: ConvNet(channels=3, height=12, image_width=12, width=5, filters=(8, 8)),
    "mlp": lambda: MLP(inputs=432, width=5, hidden=[32, 16]),
    "vit": lambda: VisionTransformer(
        channels=3, height=12, image_width=12, width=5, patch=4, dim=32, depth=2, heads=4
    ),
    "plain": Plain,
}


def made(name):
    torch.manual_seed(0)
    net = NETWORKS[name]().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return net


def images(count=6):
    return torch.randn(
        count, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def size(net):
    return sum(p.numel() for p in net.parameters())


def unheard(net, plan):
    """The whole network, whose removed channels no later layer listens to."""
    deaf = copy.deepcopy(net)
    for layers, gone in plan.cuts:
        for path, side in layers:
            layer = deaf.get_submodule(path)
            if side == "out" or not axes(layer, "in"):
                continue
            weight = layer.weight.data.movedim(axes(layer, "in")["weight"], 0)
            groups = getattr(layer, "groups", 1)
            for channel in gone:
                rows = weight[channel % len(weight)].chunk(groups)
                rows[channel // len(weight)].zero_()
    return deaf


def same(one, two, tolerance=1e-10):
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)
