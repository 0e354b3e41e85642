"""From a codec's parts to the tensors of a shard, and back for any choice of rows.

Tensors are named `field:part`. A part with bytes of different number per position has beside it
`field:part:lengths`, and `field:part:anchors`, the first byte of every 64th position. A ragged
field has `field::starts`, the first position of every row and the end of the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.labels.codecs.form import Part, Parts, Stream
from understudy.labels.files import Tensors

EVERY = 64
Positions = NDArray[np.int64]


def lay_out(field: str, batches: Sequence[Parts], lengths: Positions | None) -> Tensors:
    """The tensors of one field in one shard.

    Args:
        field: its name.
        batches: its parts, batch by batch.
        lengths: positions per row where the field is ragged.
    """
    laid: Tensors = {}
    for name in batches[0]:
        found = [parts[name] for parts in batches]
        streams = [part for part in found if isinstance(part, Stream)]
        if streams:
            content = np.concatenate([part.content for part in streams])
            sizes = np.concatenate([part.lengths for part in streams])
            laid[f"{field}:{name}"] = content
            laid[f"{field}:{name}:lengths"] = sizes
            starts = np.cumsum(sizes, dtype=np.int64) - sizes
            laid[f"{field}:{name}:anchors"] = starts[::EVERY].astype(np.int64)
        else:
            laid[f"{field}:{name}"] = np.concatenate(found)  # type: ignore[arg-type]
    if lengths is not None:
        laid[f"{field}::starts"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return laid


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where some positions lie: grouped by shard, in the order that is asked for.

    Attributes:
        count: how many positions.
        groups: per shard its number, which of the asked positions lie in it, and where there.
    """

    count: int
    groups: tuple[tuple[int, Positions, Positions], ...]


def group(shards: Positions, at: Positions) -> Places:
    """Group positions `[n]` by the shard each of them lies in."""
    if not len(shards):
        return Places(count=0, groups=())
    order = np.argsort(shards, kind="stable")
    numbers, first = np.unique(shards[order], return_index=True)
    cuts = np.split(order, first[1:])
    groups = [(int(n), asked, at[asked]) for n, asked in zip(numbers, cuts, strict=True)]
    return Places(count=len(shards), groups=tuple(groups))


def expand(
    field: str, shards: Mapping[int, Tensors], places: Places
) -> tuple[Places, NDArray[np.int64]]:
    """The positions of ragged rows, row after row, and how many each row has."""
    lengths = np.zeros(places.count, np.int64)
    for number, asked, at in places.groups:
        starts = shards[number][f"{field}::starts"]
        lengths[asked] = starts[at + 1] - starts[at]
    first = np.cumsum(lengths) - lengths
    groups = []
    for number, asked, at in places.groups:
        starts = shards[number][f"{field}::starts"]
        groups.append(
            (number, ranges(first[asked], lengths[asked]), ranges(starts[at], lengths[asked]))
        )
    return Places(count=int(lengths.sum()), groups=tuple(groups)), lengths


def ranges(starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """`starts[0], starts[0] + 1, ...` for each length, joined: no loop over rows."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.asarray(starts, np.int64) - (ends - lengths)
    found: NDArray[np.int64] = np.arange(total) + np.repeat(shift, lengths)
    return found


def gather(field: str, shards: Mapping[int, Tensors], places: Places, names: Parts) -> Parts:
    """A field's parts, cut to these positions.

    Args:
        field: its name.
        shards: the tensors of every shard that the places name.
        places: which positions.
        names: the codec's parts of no position at all: names, and types where nothing is found.
    """
    found: dict[str, Part] = {}
    for name, form in names.items():
        whole = f"{field}:{name}"
        if isinstance(form, Stream):
            found[name] = _stream(whole, shards, places)
        else:
            found[name] = _fixed(whole, shards, places, form)
    return found


def _fixed(
    name: str, shards: Mapping[int, Tensors], places: Places, form: NDArray[Any]
) -> NDArray[Any]:
    if len(places.groups) == 1:
        number, asked, at = places.groups[0]
        found = shards[number][name]
        return found[at] if len(asked) else form
    result = np.empty((places.count, *form.shape[1:]), form.dtype)
    for number, asked, at in places.groups:
        result[asked] = shards[number][name][at]
    return result


def _stream(name: str, shards: Mapping[int, Tensors], places: Places) -> Stream:
    lengths = np.zeros(places.count, np.int64)
    starts = np.zeros(places.count, np.int64)
    for number, asked, at in places.groups:
        sizes = shards[number][f"{name}:lengths"]
        lengths[asked] = sizes[at]
        starts[asked] = shards[number][f"{name}:anchors"][at // EVERY] + _within(sizes, at)
    into = np.cumsum(lengths) - lengths
    content = np.empty(int(lengths.sum()), np.uint8)
    for number, asked, _ in places.groups:
        sizes = lengths[asked]
        content[ranges(into[asked], sizes)] = shards[number][name][ranges(starts[asked], sizes)]
    return Stream(content=content, lengths=lengths)


def _within(sizes: NDArray[Any], at: Positions) -> NDArray[np.int64]:
    """Bytes between a position and the anchor before it."""
    blocks, which = np.unique(at // EVERY, return_inverse=True)
    index = np.minimum(blocks[:, None] * EVERY + np.arange(EVERY), len(sizes) - 1)
    before = np.cumsum(sizes[index], axis=1, dtype=np.int64) - sizes[index]
    found: NDArray[np.int64] = before[which, at % EVERY]
    return found
