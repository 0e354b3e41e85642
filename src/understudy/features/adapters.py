"""The catalogue of adapters: what stands between captured features and a loss, by kind.

A kind is what a row of the catalogue of losses names in `adapter`. An empty one needs no adapter.
`contrast` also takes the ids and the labels of the rows that it shall remember, `words` the ids and
the words of every row.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

from understudy.features.connectors import Connect
from understudy.features.contrast import Contrast
from understudy.features.embedding import Embed
from understudy.features.factors import Factors
from understudy.features.fusion import Fuse
from understudy.features.generator import Generate
from understudy.features.heads import Heads
from understudy.features.matching import Match
from understudy.features.paraphrase import Paraphrase
from understudy.features.statistics import Flat, Pool
from understudy.features.temperature import Temperature
from understudy.features.variance import Variance
from understudy.features.words import Words

ADAPTERS: Final[Mapping[str, type[nn.Module]]] = MappingProxyType(
    {
        "match": Match,
        "pool": Pool,
        "flat": Flat,
        "variance": Variance,
        "temperature": Temperature,
        "embed": Embed,
        "contrast": Contrast,
        "paraphrase": Paraphrase,
        "factors": Factors,
        "connect": Connect,
        "generate": Generate,
        "fuse": Fuse,
        "heads": Heads,
        "words": Words,
    }
)
