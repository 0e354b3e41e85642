"""Data: where rows come from, how they are split, and what stands between them and a network.

Every source is a function of typed keywords that gives `Rows`; the one table below lists them by
`kind`. To add one: a function, a row here, a test file, a row in the manual. Nothing here loads
torch; `splits`, `preprocess`, `views` and `loaders` do, and are imported by name.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from understudy.data.array_files import arrays
from understudy.data.checks import check_rows
from understudy.data.conll import conll
from understudy.data.csv_files import csv
from understudy.data.documents import completions, documents
from understudy.data.idx_files import idx
from understudy.data.image_folders import images
from understudy.data.parquet_files import parquet
from understudy.data.restoring import restoring
from understudy.data.rewriting import rewriting
from understudy.data.rows import Column, Rows
from understudy.data.sources import diabetes, digits, from_custom
from understudy.data.teacher_texts import teacher_text
from understudy.data.text_lines import lines
from understudy.data.text_sources import from_dataset, from_texts, text

__all__ = [
    "CATALOGUE",
    "Column",
    "Rows",
    "arrays",
    "check_rows",
    "completions",
    "conll",
    "csv",
    "diabetes",
    "digits",
    "documents",
    "from_custom",
    "from_dataset",
    "from_texts",
    "idx",
    "images",
    "lines",
    "parquet",
    "restoring",
    "rewriting",
    "teacher_text",
    "text",
]

CATALOGUE: Final[Mapping[str, Callable[..., Rows]]] = MappingProxyType(
    {
        "digits": digits,
        "diabetes": diabetes,
        "arrays": arrays,
        "idx": idx,
        "csv": csv,
        "parquet": parquet,
        "images": images,
        "text": text,
        "documents": documents,
        "completions": completions,
        "conll": conll,
        "restoring": restoring,
        "rewriting": rewriting,
        "teacher_text": teacher_text,
        "lines": lines,
    }
)
