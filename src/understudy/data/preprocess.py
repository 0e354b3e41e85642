"""From raw rows to what a network takes, inside the model and inside its exported file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.data.moments import moments
from understudy.data.rows import Column, Rows
from understudy.data.wording import quoted
from understudy.errors import DataError

_FORMS = ("image", "table", "identity")


class Preprocess(nn.Module):
    """Raw rows to the tensors that networks take; constants only, nothing to learn.

    Images `[batch, height, width, channels]` become float32 `[batch, channels, height, width]`,
    `(x / scale - mean) / std` per channel, in the channels-last strides that they already have.
    Tables `[batch, columns]` become `[batch, inputs]`: first every number as `(x - mean) / std`,
    then every category as a one-hot group; an unknown code gives a group of zeros.
    `identity` gives rows as they are, for a network that does all this itself.

    Args:
        form: `image`, `table` or `identity`.
        row: the shape of one raw row.
        scale: what images are divided by first.
        mean: one per channel, or per number column.
        std: likewise, above 0.
        columns: of a table.

    Raises:
        ValueError: the constants do not fit the rows.

    Example:
        >>> pixels = torch.full((2, 4, 4, 1), 255, dtype=torch.uint8)
        >>> inside = Preprocess(form="image", row=(4, 4, 1), scale=255.0, mean=[0.5], std=[0.25])
        >>> inside(pixels)[0, 0, 0]
        tensor([2., 2., 2., 2.])
    """

    mean: Tensor
    std: Tensor
    numbers: Tensor
    sources: Tensor
    codes: Tensor

    def __init__(
        self,
        *,
        form: str,
        row: Sequence[int],
        scale: float = 1.0,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        columns: Sequence[Column] = (),
    ) -> None:
        super().__init__()
        self.form, self.row, self.columns = form, tuple(row), tuple(columns)
        self.scale = float(scale)
        self._mean, self._std = tuple(map(float, mean)), tuple(map(float, std))
        self._check()
        # In raw units, which saves a pass: (x / scale - mean) / std = (x - mean') / std'.
        shape = (-1, 1, 1) if form == "image" else (-1,)
        for name, constants in (("mean", self._mean), ("std", self._std)):
            raw = torch.tensor([value * self.scale for value in constants], dtype=torch.float32)
            self.register_buffer(name, raw.reshape(shape))
        number, sources, codes = _places(self.columns)
        self.register_buffer("numbers", torch.tensor(number, dtype=torch.int64))
        self.register_buffer("sources", torch.tensor(sources, dtype=torch.int64))
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.float32))

    @classmethod
    def identity(cls, *, row: Sequence[int]) -> "Preprocess":
        """Rows of this shape, as they are."""
        return cls(form="identity", row=row)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "Preprocess":
        """What `describe` wrote, exactly.

        Raises:
            DataError: it is no such description.
        """
        try:
            columns = [
                Column(name=c["name"], categories=c["categories"] and tuple(c["categories"]))
                for c in description["columns"]
            ]
            return cls(
                form=description["form"],
                row=description["row"],
                scale=description["scale"],
                mean=description["mean"],
                std=description["std"],
                columns=columns,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"a description of preprocessing must be what `describe` writes, but this one "
                f"does not fit ({type(error).__name__}: {error})"
            ) from error

    def describe(self) -> dict[str, Any]:
        """Everything it is made of, as plain JSON."""
        return {
            "form": self.form,
            "row": list(self.row),
            "scale": self.scale,
            "mean": list(self._mean),
            "std": list(self._std),
            "columns": [
                {"name": c.name, "categories": None if c.categories is None else list(c.categories)}
                for c in self.columns
            ],
        }

    @property
    def facts(self) -> dict[str, int]:
        """What a network must know of its inputs, by the names of its arguments.

        `inputs` is how many numbers a row has once flattened; images also have `channels`,
        `height` and `image_width`.
        """
        if self.form == "image":
            height, image_width, channels = self.row
            sizes = {"channels": channels, "height": height, "image_width": image_width}
            return {**sizes, "inputs": math.prod(self.row)}
        if self.form == "table":
            return {"inputs": len(self.numbers) + len(self.codes)}
        return {"inputs": math.prod(self.row)}

    def forward(self, rows: Shaped[Tensor, " batch ..."]) -> Shaped[Tensor, " batch ..."]:
        """What the network takes, one per raw row.

        Raises:
            ValueError: the rows have another shape than those it was made for.
        """
        if tuple(rows.shape[1:]) != self.row:
            raise ValueError(
                f"every raw row must have the shape {list(self.row)}, but got rows of shape "
                f"{list(rows.shape)} (images have their channels last)"
            )
        if self.form == "identity":
            return rows
        if self.form == "image":
            return self._image(rows)
        return self._table(rows.to(torch.float32))

    def _image(
        self, rows: Shaped[Tensor, " batch height image_width channels"]
    ) -> Float32[Tensor, " batch channels height image_width"]:
        return (rows.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std

    def _table(self, rows: Float32[Tensor, " batch columns"]) -> Float32[Tensor, " batch inputs"]:
        numbers = (rows.index_select(1, self.numbers) - self.mean) / self.std
        groups = (rows.index_select(1, self.sources) == self.codes).to(torch.float32)
        if not len(self.codes):
            return numbers
        return torch.cat([numbers, groups], dim=1) if len(self.numbers) else groups

    def _check(self) -> None:
        axes = {"image": 3, "table": 1, "identity": len(self.row)}
        if self.form not in axes:
            raise ValueError(f"`form` must be one of {', '.join(_FORMS)}, but got {self.form!r}")
        if len(self.row) != axes[self.form] or min(self.row, default=1) < 1:
            raise ValueError(
                f"`row` of form `{self.form}` must have {axes[self.form]} sizes of at least 1, but "
                f"got {list(self.row)}"
            )
        if self.form == "table" and len(self.columns) != self.row[0]:
            raise ValueError(
                f"every column must be described, but got {len(self.columns)} for {self.row[0]}"
            )
        wanted = _constants(self.form, self.row, self.columns)
        if not len(self._mean) == len(self._std) == wanted:
            raise ValueError(
                f"`mean` and `std` must have {wanted} entries, but got {len(self._mean)} and "
                f"{len(self._std)}"
            )
        if not all(map(math.isfinite, self._mean)):
            raise ValueError(f"`mean` must be finite, but got {list(self._mean)}")
        for name, values in (("std", self._std), ("scale", (self.scale,))):
            if any(not (value > 0 and math.isfinite(value)) for value in values):
                raise ValueError(f"`{name}` must be above 0 and finite, but got {list(values)}")


def fit_preprocess(
    rows: Rows,
    train_positions: NDArray[np.int64],
    *,
    scale: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocess:
    """Preprocessing with the constants that are given; the others from the training rows.

    Args:
        rows: all of them.
        train_positions: those that statistics may be taken from.
        scale: what images are divided by; without it 255 for uint8, 1 for float32.
        mean: after scaling, one per channel, or per number column.
        std: likewise. A channel or column that never changes has 1.

    Raises:
        DataError: the constants do not fit the rows, or there are no training rows.
    """
    row, columns = rows.inputs.shape[1:], rows.columns or ()
    if rows.form == "table" and scale is not None:
        raise DataError(f"`scale` is for images, but the rows are a table and got {scale}")
    if rows.form == "table" and not columns:
        columns = tuple(Column(name=f"column {number}") for number in range(row[0]))
    wanted = _constants(rows.form, row, columns)
    for name, given in (("mean", mean), ("std", std)):
        if given is not None and len(given) != wanted:
            names = quoted(c.name for c in columns if c.categories is None)
            what = f"number column ({names})" if rows.form == "table" else "channel"
            raise DataError(
                f"`{name}` must have {wanted} entries, one per {what}, but got {len(given)}"
            )
    factor = scale if scale is not None else 255.0 if rows.inputs.dtype == np.uint8 else 1.0
    if not factor > 0:
        raise DataError(f"`scale` must be above 0, but got {factor}: 255 for 8-bit images")
    if mean is None or std is None:
        if not len(train_positions):
            raise DataError("preprocessing must see at least one training row, but there is none")
        found = moments(rows.inputs, train_positions, scale=factor)
        keep = _places(columns)[0] if rows.form == "table" else list(range(wanted))
        mean, std = (
            list(given) if given is not None else part[keep].tolist()
            for given, part in zip((mean, std), found, strict=True)
        )
    try:
        return Preprocess(
            form=rows.form, row=row, scale=factor, mean=mean, std=std, columns=columns
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def _constants(form: str, row: Sequence[int], columns: Sequence[Column]) -> int:
    """How many means there are."""
    return {"image": row[-1], "table": len(_places(columns)[0])}.get(form, 0) if row else 0


def _places(columns: Sequence[Column]) -> tuple[list[int], list[int], list[float]]:
    """Where the numbers are; and for every one-hot output its column and its code."""
    numbers: list[int] = []
    sources: list[int] = []
    codes: list[float] = []
    for place, column in enumerate(columns):
        if column.categories is None:
            numbers.append(place)
        else:
            sources += [place] * len(column.categories)
            codes += map(float, range(len(column.categories)))
    return numbers, sources, codes
