"""The residual network for small images: 6n + 2 layers in three stages.

It is not torchvision's ResNet with a small stem: that one has four stages, starts at 64 filters
and is forty times larger.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.models.arguments import check_sizes


class CifarResNet(nn.Module):
    """`[batch, channels, height, image_width]` of any size to `[batch, width]`.

    A 3x3 stem, then three stages of n blocks with `base`, 2 `base` and 4 `base` filters; the
    second and the third stage begin by halving the image, rounding up. Global average pooling, so
    the size of the image is no part of the network. Convolutions have no bias and start from He
    et al. 2015, section 2.2.

    Args:
        channels: of the image.
        width: answers per row.
        depth: layers with weights, 6n + 2: 8, 14, 20, 32, 44, 56, 110, ...
        base: filters of the first stage.
        shortcut: how a shortcut grows. "A" takes every other pixel and pads channels with zeros,
            which needs no parameters and is the authors' choice here; "B" is a 1x1 convolution.

    Raises:
        ValueError: a size is below 1, the depth is not 6n + 2, or the shortcut has another name.

    Paper:
        He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition", section 4.2;
        the shortcuts are in section 3.3.

    Example:
        >>> import torch
        >>> CifarResNet(channels=3, width=10, depth=8)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        depth: int,
        base: int = 16,
        shortcut: Literal["A", "B"] = "A",
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, width=width, base=base)
        _check_depth(depth)
        if shortcut not in ("A", "B"):
            raise ValueError(f'`shortcut` must be "A" or "B", but got {shortcut=}')
        self.stem = nn.Sequential(_convolution(channels, base), nn.BatchNorm2d(base), nn.ReLU())
        stages: list[nn.Module] = []
        before = base
        for filters, stride in ((base, 1), (2 * base, 2), (4 * base, 2)):
            blocks: list[nn.Module] = []
            for number in range((depth - 2) // 6):
                step = stride if number == 0 else 1
                way = _shortcut(shortcut, before, filters, step)
                blocks.append(ResidualBlock(before, filters, stride=step, shortcut=way))
                before = filters
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(before, width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(
        self, inputs: Float[Tensor, " batch channels height image_width"]
    ) -> Float[Tensor, " batch width"]:
        """One row of answers per image."""
        maps = self.stem(inputs)
        for stage in self.stages:
            maps = stage(maps)
        # A mean, as adaptive pooling has no deterministic gradient on CUDA.
        answers: Tensor = self.head(maps.mean(dim=(2, 3)))
        return answers


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them, with the ReLU after the sum."""

    def __init__(self, before: int, filters: int, *, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = _convolution(before, filters, stride=stride)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = _convolution(filters, filters)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut = shortcut

    def forward(
        self, maps: Float[Tensor, " batch before height image_width"]
    ) -> Float[Tensor, " batch filters smaller_height smaller_width"]:
        """The block's maps."""
        inner = F.relu(self.norm1(self.conv1(maps)))
        inner = self.norm2(self.conv2(inner))
        return F.relu(inner + self.shortcut(maps))


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, with `extra` channels of zeros behind the others."""

    def __init__(self, *, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(
        self, maps: Float[Tensor, " batch before height image_width"]
    ) -> Float[Tensor, " batch filters smaller_height smaller_width"]:
        """The maps, thinned out and padded."""
        thinned = maps[:, :, :: self.stride, :: self.stride]
        return F.pad(thinned, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Its constants, for printing."""
        return f"stride={self.stride}, extra={self.extra}"


def _convolution(before: int, filters: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, filters, kernel_size=3, stride=stride, padding=1, bias=False)


def _shortcut(option: str, before: int, filters: int, stride: int) -> nn.Module:
    if before == filters and stride == 1:
        return nn.Identity()
    if option == "A":
        return PaddedShortcut(stride=stride, extra=filters - before)
    convolution = nn.Conv2d(before, filters, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters))


def _check_depth(depth: int) -> None:
    if depth < 8 or (depth - 2) % 6:
        lower = max(8, 6 * ((depth - 2) // 6) + 2)
        near = "8" if depth < 8 else f"{lower} or {lower + 6}"
        raise ValueError(
            f"`depth == 6 * n + 2` must hold for a whole n >= 1, but got {depth=}: use {near}"
        )
