"""Small reference networks that need no other package, and the one table that lists them.

Each takes float rows and answers `[batch, width]`. What describes the data is filled in by name
when a recipe is built: `inputs`, `channels`, `height`, `image_width` and `width`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

from understudy.models.convnet import ConvNet
from understudy.models.mlp import MLP
from understudy.models.resnet import CifarResNet
from understudy.models.vit import VisionTransformer

__all__ = ["CATALOGUE", "MLP", "CifarResNet", "ConvNet", "VisionTransformer"]

CATALOGUE: Final[Mapping[str, type[nn.Module]]] = MappingProxyType(
    {
        "mlp": MLP,
        "convnet": ConvNet,
        "resnet": CifarResNet,
        "vit": VisionTransformer,
    }
)
