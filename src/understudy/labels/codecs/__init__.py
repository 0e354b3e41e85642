"""How knowledge lies in a shard: one codec per file, and the one table that lists them by `kind`.

To add one: a class with the members of `form.Codec` in a file of its own, a row here, a test file,
a row in the manual.
"""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from numpy.typing import NDArray

from understudy.errors import StoreError, did_you_mean
from understudy.labels.codecs.dense import Dense
from understudy.labels.codecs.form import Codec
from understudy.labels.codecs.hidden import Hidden
from understudy.labels.codecs.int8 import Int8
from understudy.labels.codecs.sampled import Sampled
from understudy.labels.codecs.top_k import TopK
from understudy.labels.codecs.top_p import TopP

__all__ = ["CATALOGUE", "Dense", "Hidden", "Int8", "Sampled", "TopK", "TopP", "make"]

CATALOGUE: Final[Mapping[str, type[Codec]]] = MappingProxyType(
    {
        "dense": Dense,
        "int8": Int8,
        "top_k": TopK,
        "top_p": TopP,
        "sampled": Sampled,
        "hidden": Hidden,
    }
)


def make(kind: str, parameters: Mapping[str, Any], constants: Mapping[str, NDArray[Any]]) -> Codec:
    """The codec that a manifest speaks of.

    Args:
        kind: its name in the catalogue.
        parameters: what its `parameters` were when the store was written.
        constants: the arrays that lie beside the shards, by name.

    Raises:
        StoreError: no such kind, or one that does not take these arguments.
    """
    if kind not in CATALOGUE:
        raise StoreError(f"`{kind}` is no codec: {did_you_mean(kind, CATALOGUE)}")
    given = {**parameters, **constants}
    taken = inspect.signature(CATALOGUE[kind]).parameters
    for name in given:
        if name not in taken:
            raise StoreError(f"codec `{kind}` takes no `{name}`: {did_you_mean(name, taken)}")
    missing = [n for n, p in taken.items() if p.default is p.empty and n not in given]
    if missing:
        named = ", ".join(f"`{name}`" for name in missing)
        raise StoreError(f"codec `{kind}` needs {named}, but the store has none: label again")
    try:
        return CATALOGUE[kind](**given)
    except (ValueError, TypeError) as error:
        raise StoreError(f"codec `{kind}`: {error}") from error
