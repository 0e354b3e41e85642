"""Recipe entry to object: the only place where a recipe's `kind` meets a class."""

from understudy.build.check import check, check_term, checked
from understudy.build.cuts import (
    Family,
    apply_cut,
    calibration_rows,
    plan_cut,
    read_plan,
    traced,
)
from understudy.build.layers import Matched, captured, match, reads_layers
from understudy.build.parts import (
    MODELS,
    codec,
    coder,
    constructor,
    folder,
    network,
    predictor,
    source,
    tokenizer,
    tokenizer_mark,
    views,
)
from understudy.build.schema import schema
from understudy.build.targets import sources
from understudy.build.terms import terms, with_adapters
from understudy.build.unlabelled import unlabelled, unlabelled_sources

__all__ = [
    "MODELS",
    "Family",
    "Matched",
    "apply_cut",
    "calibration_rows",
    "captured",
    "check",
    "check_term",
    "checked",
    "codec",
    "coder",
    "constructor",
    "folder",
    "match",
    "network",
    "plan_cut",
    "predictor",
    "read_plan",
    "reads_layers",
    "schema",
    "source",
    "sources",
    "terms",
    "tokenizer",
    "tokenizer_mark",
    "traced",
    "unlabelled",
    "unlabelled_sources",
    "views",
    "with_adapters",
]
