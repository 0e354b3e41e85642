"""Views: the augmented forms of a row, each a function of (seed, example id, view number).

Random numbers come from a counter-based hash of these three, not from a generator with a state:
the same view is the same picture in every run, order, worker and process, so it can be replayed.
All operations work on a whole batch of raw rows at once, in main memory.

To add one: a class, a row in the table below, tests, and a row in the manual.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from understudy.data.views.chain import Mixing, View, Views, misplaced
from understudy.data.views.colour import Colour
from understudy.data.views.erasing import Erase
from understudy.data.views.geometry import Crop, Flip
from understudy.data.views.mixing import CutMix, Mixup
from understudy.data.views.numbers import draw
from understudy.data.views.own import Own
from understudy.data.views.tokens import OfTokens, TokenCrop, TokenDropout

__all__ = [
    "CATALOGUE",
    "FOR_TABLES",
    "FOR_TEXTS",
    "MIXING",
    "Colour",
    "Crop",
    "CutMix",
    "Erase",
    "Flip",
    "Mixing",
    "Mixup",
    "OfTokens",
    "Own",
    "TokenCrop",
    "TokenDropout",
    "View",
    "Views",
    "draw",
    "misplaced",
]

CATALOGUE: Final[Mapping[str, Callable[..., View | Mixing | OfTokens]]] = MappingProxyType(
    {
        "crop": Crop,
        "flip": Flip,
        "erase": Erase,
        "colour": Colour,
        "mixup": Mixup,
        "cutmix": CutMix,
        "token_dropout": TokenDropout,
        "token_crop": TokenCrop,
    }
)
MIXING: Final = frozenset({"mixup", "cutmix"})
FOR_TABLES: Final = frozenset({"mixup", "custom"})  # others need pixels, or tokens
FOR_TEXTS: Final = frozenset({"token_dropout", "token_crop", "custom"})
