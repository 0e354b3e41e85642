"""Small reference networks that need no other package, and the one table that lists them.

Each answers `[batch, width]`, to float rows or, where its name begins with `text`, to rows of token
ids. What describes the data is filled in by name when a recipe is built: `inputs`, `channels`,
`height`, `image_width`, `vocabulary`, `pad`, `length` and `width`.

Causal language models answer `[batch, length, vocabulary]` and have a table of their own, `CAUSAL`;
what they share is in `causal`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

from understudy.models.convnet import ConvNet
from understudy.models.gpt import GPT
from understudy.models.mlp import MLP
from understudy.models.resnet import CifarResNet
from understudy.models.text_bilstm import TextBiLSTM
from understudy.models.text_cnn import TextCNN
from understudy.models.text_static import TextStatic
from understudy.models.text_transformer import TextTransformer
from understudy.models.vit import VisionTransformer

__all__ = [
    "CATALOGUE",
    "CAUSAL",
    "GPT",
    "MLP",
    "CifarResNet",
    "ConvNet",
    "TextBiLSTM",
    "TextCNN",
    "TextStatic",
    "TextTransformer",
    "VisionTransformer",
]

CATALOGUE: Final[Mapping[str, type[nn.Module]]] = MappingProxyType(
    {
        "mlp": MLP,
        "convnet": ConvNet,
        "resnet": CifarResNet,
        "vit": VisionTransformer,
        "text_static": TextStatic,
        "text_cnn": TextCNN,
        "text_bilstm": TextBiLSTM,
        "text_transformer": TextTransformer,
    }
)

CAUSAL: Final[Mapping[str, type[nn.Module]]] = MappingProxyType({"gpt": GPT})
