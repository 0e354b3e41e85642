"""Rows worth looking at: which ones they are, and their images as PNG in a data URI."""

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to PNG's colour type
# From what share of the second class on a row "looks like" it, and below what it says nothing.
_LOOKS_LIKE, _NOTHING = 0.1, 0.001


def png_data_uri(image: Array, *, scale: int = 1, longest: int = 96) -> str:
    """An image, uint8 `[height, width]` or `[height, width, channels]`, as a PNG data URI.

    Args:
        image: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA) channels.
        scale: every pixel becomes a square of so many.
        longest: a side longer than this many pixels is made shorter first, by averaging whole
            blocks, so that a gallery of photographs stays small.

    Raises:
        ValueError: it is not such an image.
    """
    pixels = image[:, :, None] if image.ndim == 2 else image
    if (
        pixels.ndim != 3
        or pixels.shape[2] not in _COLOUR
        or pixels.dtype != np.uint8
        or not pixels.size
    ):
        raise ValueError(
            "an image must be uint8 [height, width] or [height, width, 1 to 4 channels], and not "
            f"empty, but got {image.dtype} {list(image.shape)}: scale it to 0..255, channels last"
        )
    pixels = _shrunk(pixels, longest).repeat(scale, axis=0).repeat(scale, axis=1)
    return f"data:image/png;base64,{b64encode(_png(pixels)).decode()}"


def choose_rows(
    teacher_probabilities: Array,
    labels: Array | None,
    student: Array,
    control: Array | None,
    *,
    count: int = 24,
    classes: Sequence[str] | None = None,
) -> list[tuple[int, str]]:
    """Rows that show what soft labels say: their positions, and why each was chosen.

    Half are rows that the teacher gets right while it sees much of another class in them (Hinton
    et al. 2015, section 1: a 2 that looks like a 3); a quarter each are rows that the student wins
    over its control, and loses to it. Each kind is spread over the classes, the most telling first.

    Args:
        teacher_probabilities: `[rows, classes]`.
        labels: int `[rows]`, -1 where there is none; None where no row has one.
        student: the student's probabilities, `[rows, classes]`.
        control: the control's, None where there is no control.
        count: how many rows at most.
        classes: names of the classes, for the sentences.
    """
    rows, width = teacher_probabilities.shape
    if not rows or width < 2 or count < 1:
        return []
    known = np.zeros(rows, dtype=bool) if labels is None else labels >= 0
    top = teacher_probabilities.argmax(axis=1)
    truth = top if labels is None else np.where(known, labels, top).astype(np.int64)
    names = list(classes) if classes is not None else [str(index) for index in range(width)]
    contested: dict[int, str] = {}
    if control is not None:
        for winner, loser, words in (
            (student, control, "the student is right where the control says {}"),
            (control, student, "the control is right where the student says {}"),
        ):
            taken = loser.argmax(axis=1)
            won = known & (winner.argmax(axis=1) == truth) & (taken != truth)
            order = _spread(won, _sure(winner, truth) - _sure(loser, truth), truth)
            contested |= {p: words.format(names[taken[p]]) for p in order[: count // 4]}
    second = np.argsort(-teacher_probabilities, axis=1, kind="stable")[:, 1]
    seen = _sure(teacher_probabilities, second)
    # Where some rows have labels, a row without one cannot show that the teacher is right.
    soft = (top == truth) & (known | ~known.any()) & (seen >= _NOTHING)
    order = _spread(soft, _entropy_off_top(teacher_probabilities), truth)
    telling = [p for p in order if p not in contested][: count - len(contested)]
    told = {p: _looks(names[truth[p]], names[second[p]], float(seen[p])) for p in telling}
    return list((told | contested).items())


def _looks(name: str, other: str, share: float) -> str:
    if share >= _LOOKS_LIKE:
        return f"the {name} that looks like {_a(other)}"
    return f"the {name} with a trace of {_a(other)}"


def _entropy_off_top(probabilities: Array) -> Array:
    """What the classes beside the top one add to the entropy, in nats per row."""
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1.0)
    terms = -p * np.log(p)
    terms[np.arange(len(p)), p.argmax(axis=1)] = 0
    return np.asarray(terms.sum(axis=1))


def _sure(probabilities: Array, truth: Array) -> Array:
    return np.asarray(probabilities[np.arange(len(truth)), truth], dtype=np.float64)


def _spread(candidates: Array, telling: Array, truth: Array) -> list[int]:
    """The candidates, the most telling of every class before the second of any."""
    turn: dict[int, int] = {}
    order = []
    for position in np.argsort(-telling, kind="stable"):
        if candidates[position]:
            label = int(truth[position])
            turn[label] = turn.get(label, 0) + 1
            order.append((turn[label], int(position)))
    return [position for _, position in sorted(order, key=lambda item: item[0])]


def _a(name: str) -> str:
    vowel = name[:1].lower() in tuple("aeiou8") or name in ("11", "18")
    return f"{'an' if vowel else 'a'} {name}"


def _shrunk(pixels: Array, longest: int) -> Array:
    block = -(-max(pixels.shape[:2]) // max(longest, 1))
    if block <= 1:
        return pixels
    # The last block may be cut: its mean is over what there is of it.
    rows, columns = (np.arange(0, side, block) for side in pixels.shape[:2])
    sums = np.add.reduceat(
        np.add.reduceat(pixels.astype(np.float64), rows, axis=0), columns, axis=1
    )
    tall, wide = (
        np.diff([*starts, side])
        for starts, side in zip((rows, columns), pixels.shape[:2], strict=True)
    )
    return np.asarray(np.rint(sums / (tall[:, None] * wide[None, :])[:, :, None]), dtype=np.uint8)


def _png(pixels: Array) -> bytes:
    """The bytes of a PNG file: a header, the rows unfiltered and deflated, the end."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0)
    filters = np.zeros((height, 1), dtype=np.uint8)
    rows = np.concatenate([filters, pixels.reshape(height, width * channels)], axis=1)
    body = zlib.compress(rows.tobytes(), 9)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
