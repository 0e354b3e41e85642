"""Encoded images, as files or as bytes, to one uint8 array, with several threads."""

import io
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.data.wording import examples
from understudy.errors import DataError, MissingExtraError

OnBadRows = Literal["error", "skip"]
Encoded = bytes | Path | None

# One task decodes so many, since handing over a single small image costs as much as decoding it.
_SLICE = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder:
    """How images are read.

    Attributes:
        size: (height, width) that every image is brought to; None: they have one size.
        grayscale: one channel; otherwise three, red, green and blue. Transparency is dropped.
        on_bad_rows: what an image that cannot be decoded means.
    """

    size: tuple[int, int] | None = None
    grayscale: bool = False
    on_bad_rows: OnBadRows = "error"

    def __call__(
        self,
        batches: Iterable[Sequence[Encoded]],
        *,
        total: int,
        name: Callable[[int], str],
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images uint8 `[kept, height, width, channels]`, and the positions of those kept.

        Args:
            batches: `total` encoded images, in lists of any length.
            total: how many there are.
            name: what to call the image at a position in a message.

        Raises:
            DataError: images cannot be decoded, or differ in size.
        """
        images = _Images(total=total)
        position = 0
        with ThreadPoolExecutor() as pool:
            for batch in batches:
                for result in self._read_all(pool, batch):
                    images.put(position, result)
                    position += 1
        self._report(images, name)
        if images.out is None:
            raise DataError("no image could be decoded, so there are no rows: check the files")
        keep = np.setdiff1d(np.arange(total), list(images.bad))
        return images.out if len(keep) == total else images.out[keep], keep

    def _read_all(
        self, pool: ThreadPoolExecutor, batch: Sequence[Encoded]
    ) -> Iterator[NDArray[np.uint8] | str]:
        slices = [batch[start : start + _SLICE] for start in range(0, len(batch), _SLICE)]
        for results in pool.map(lambda part: [self._read(item) for item in part], slices):
            yield from results

    def _read(self, item: Encoded) -> NDArray[np.uint8] | str:
        if item is None:
            return "it is empty"
        image_module = _pillow()
        try:
            source = item if isinstance(item, Path) else io.BytesIO(item)
            with image_module.open(source) as image:
                if image.mode.startswith(("I", "F")):
                    return f"it has pixels of mode {image.mode}, not 8 bits per channel"
                picture = image.convert("L" if self.grayscale else "RGB")
            if self.size is not None and picture.size != self.size[::-1]:
                picture = picture.resize(self.size[::-1], image_module.Resampling.BILINEAR)
        except image_module.DecompressionBombError as error:
            return str(error)
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
            return str(error).split(" <")[0]  # Pillow adds the address of its buffer
        pixels = np.asarray(picture)
        return pixels[..., None] if self.grayscale else pixels

    def _report(self, images: "_Images", name: Callable[[int], str]) -> None:
        if images.bad and self.on_bad_rows == "error":
            shown = examples(f"{name(at)} ({why})" for at, why in images.bad.items())
            raise DataError(
                f"every image must decode, but {len(images.bad)} of {images.total} do not: "
                f"{shown}; repair or remove them, or leave them out with `on_bad_rows: skip`"
            )
        if images.odd and images.out is not None:
            shape = images.out.shape[1:3]
            shown = examples(f"{name(at)} ({h} x {w})" for at, (h, w) in images.odd.items())
            usual = Counter(images.odd.values())
            usual[(shape[0], shape[1])] += images.total - len(images.odd) - len(images.bad)
            best = max(usual, key=lambda pair: usual[pair])
            raise DataError(
                f"all images must have one size, height x width, but {len(images.odd)} of "
                f"{images.total} are not {shape[0]} x {shape[1]} as the first is: {shown}; bring "
                f"them to one size with `size: [{best[0]}, {best[1]}]`"
            )


@dataclass(kw_only=True, slots=True)
class _Images:
    """What was decoded so far; the first good image settles the size."""

    total: int
    out: NDArray[np.uint8] | None = None
    bad: dict[int, str] = field(default_factory=dict)
    odd: dict[int, tuple[int, int]] = field(default_factory=dict)

    def put(self, position: int, result: NDArray[np.uint8] | str) -> None:
        if isinstance(result, str):
            self.bad[position] = result
            return
        if self.out is None:
            self.out = np.empty((self.total, *result.shape), np.uint8)
        if result.shape == self.out.shape[1:]:
            self.out[position] = result
        else:
            self.odd[position] = (result.shape[0], result.shape[1])


def asked_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """`size: [height, width]` of a recipe, checked.

    Raises:
        DataError: it is not two numbers of at least 1.
    """
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise DataError(
            f"`size` must be [height, width], each at least 1 pixel, but got {list(size)}"
        )
    return size[0], size[1]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "train") from error
    return Image
