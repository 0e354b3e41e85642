"""Recipe entry to object: the only place where a recipe's `kind` meets a class."""

from understudy.build.check import check, check_term, checked
from understudy.build.parts import codec, network, predictor, source, terms, views
from understudy.build.schema import schema
from understudy.build.targets import sources

__all__ = [
    "check",
    "check_term",
    "checked",
    "codec",
    "network",
    "predictor",
    "schema",
    "source",
    "sources",
    "terms",
    "views",
]
