"""Recipe entry to object: the only place where a recipe's `kind` meets a class."""

from understudy.build.check import check, check_term, checked
from understudy.build.layers import Matched, captured, match, reads_layers
from understudy.build.parts import codec, network, predictor, source, views
from understudy.build.schema import schema
from understudy.build.targets import sources
from understudy.build.terms import terms, with_adapters

__all__ = [
    "Matched",
    "captured",
    "check",
    "check_term",
    "checked",
    "codec",
    "match",
    "network",
    "predictor",
    "reads_layers",
    "schema",
    "source",
    "sources",
    "terms",
    "views",
    "with_adapters",
]
