"""One column of an Arrow table: a number or a category, decided once and then applied."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.data.rows import TaskKind
from understudy.data.targets import found_task
from understudy.data.wording import count_rows, examples, quoted
from understudy.errors import DataError, MissingExtraError

# A text column of so many different texts is a name or a date, not a category.
CATEGORY_LIMIT = 1000
# From this share of numbers on, the other texts of a column are taken for slips.
_NUMBER_SHARE = 0.9
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_MARKERS = ("NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "?", "-")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Values:
    """A column as it was read: texts (trimmed, null where empty) or numbers (NaN where missing).

    Attributes:
        name: of the column.
        texts: an Arrow array, where the column is of texts.
        numbers: float64 `[rows]`, where it is of numbers.
        whole: whether these are of a whole-number type.
    """

    name: str
    texts: Any | None = None
    numbers: NDArray[np.float64] | None = None
    whole: bool = False

    def numeric(self) -> bool:
        """Whether every text that is there is a number; true where none is there.

        Raises:
            DataError: nearly all are, so the others look like slips.
        """
        if self.texts is None:
            return True
        _, pc = arrow()
        there = pc.drop_null(_without_markers(self.texts))
        fits = pc.match_substring_regex(there, _NUMBER)
        count = int(pc.sum(fits).as_py() or 0)
        if _NUMBER_SHARE * len(there) <= count < len(there):
            odd = pc.unique(there.filter(pc.invert(fits))).to_pylist()
            raise DataError(
                f"column `{self.name}` holds numbers except for {count_rows(len(there) - count)}: "
                f"{quoted(odd)}; correct these, or list the column in `categorical`"
            )
        return count == len(there)

    def as_numbers(self) -> NDArray[np.float64]:
        """The numbers, NaN where there is none.

        Raises:
            DataError: some texts are no numbers.
        """
        if self.numbers is not None:
            return self.numbers
        pa, pc = arrow()
        cells = _without_markers(self.texts)
        fits = pc.match_substring_regex(cells, _NUMBER)
        odd = pc.drop_null(cells.filter(pc.invert(fits)))
        if len(odd):
            raise DataError(
                f"column `{self.name}` must hold numbers, but {count_rows(len(odd))} hold others: "
                f"{quoted(pc.unique(odd).to_pylist())}"
            )
        unsigned = pc.replace_substring_regex(cells, r"^\+", "")
        return np.asarray(pc.cast(unsigned, pa.float64()).to_numpy(), np.float64)

    def as_texts(self) -> Any:
        """The texts as an Arrow array, null where there is none; whole numbers without a point."""
        if self.texts is not None:
            return self.texts
        pa, _ = arrow()
        known = [
            None if np.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
            for value in (self.numbers if self.numbers is not None else np.empty(0)).tolist()
        ]
        return pa.chunked_array([pa.array(known, pa.large_string())])

    def as_labels(self, task: TaskKind | None, *, named: bool, what: str) -> NDArray[Any]:
        """Labels for `encode_labels`: texts for classes that are written, numbers for the rest.

        Args:
            task: what they are for, where that is known.
            named: whether the names of the classes are known.
            what: what to call them in a message.

        Raises:
            DataError: they could be classes or quantities.
        """
        if self.numbers is not None:
            if not self.whole or task == "regression":
                return self.numbers
            return np.where(np.isnan(self.numbers), -1, self.numbers).astype(np.int64)
        if task is None and not named and self.numeric():
            task = found_task(_whole_if_so(self.as_numbers()), None, what)
        if task == "regression":
            return self.as_numbers()
        return np.array([text or "" for text in self.as_texts().to_pylist()], np.object_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a column of the training table is: a number, or one of these categories."""

    name: str
    categories: tuple[str, ...] | None = None

    def encode(self, values: Values) -> NDArray[np.float64]:
        """Numbers or codes, NaN where there is none.

        Raises:
            DataError: a text is no number, or none of the categories.
        """
        if self.categories is None:
            return values.as_numbers()
        pa, pc = arrow()
        texts = values.as_texts()
        known = pa.array(self.categories, pa.large_string())
        codes = pc.index_in(texts, value_set=known)
        unknown = pc.drop_null(texts.filter(pc.is_null(codes)))
        if len(unknown):
            raise DataError(
                f"column `{self.name}` must hold one of the {len(self.categories)} categories of "
                f"the training rows ({quoted(self.categories)}), but "
                f"{count_rows(len(unknown))} hold others: "
                f"{quoted(sorted(pc.unique(unknown).to_pylist()))}"
            )
        return np.asarray(pc.cast(codes, pa.float64()).to_numpy(), np.float64)


def settle(values: Values, *, categorical: bool) -> Kind:
    """What a training column is; `categorical` makes numbers categories.

    Raises:
        DataError: it is nearly a column of numbers, or has too many categories.
    """
    if not categorical and values.numeric():
        return Kind(name=values.name)
    _, pc = arrow()
    categories = tuple(sorted(pc.unique(pc.drop_null(values.as_texts())).to_pylist()))
    if len(categories) > CATEGORY_LIMIT and not categorical:
        raise DataError(
            f"column `{values.name}` holds {len(categories)} different texts "
            f"({quoted(categories)}), which are no categories: leave it out with `columns`, or "
            "list it in `categorical` to have one input for each"
        )
    return Kind(name=values.name, categories=categories)


def read_column(table: Any, name: str) -> Values:
    """A column of a `pyarrow.Table`.

    Raises:
        DataError: it is of neither numbers nor texts.
    """
    pa, pc = arrow()
    column, types = table.column(name), pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    number = types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)
    whole = types.is_integer(kind) or types.is_boolean(kind)
    if number or whole:
        floats = pc.cast(
            column.cast(pa.uint8()) if types.is_boolean(kind) else column, pa.float64(), safe=False
        )
        return Values(name=name, numbers=np.array(floats.to_numpy(), np.float64), whole=whole)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
        return Values(
            name=name, texts=pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
        )
    raise DataError(
        f"column `{name}` must hold numbers or texts, but is of type {kind}: leave it out with "
        "`columns`"
    )


def ids_of(table: Any, name: str | None, *, first_id: int) -> NDArray[np.int64]:
    """The ids in a column, or the positions from `first_id` on where there is no such column.

    Raises:
        DataError: a row has no id, or one that is no whole number.
    """
    if name is None or name not in table.column_names:
        return np.arange(first_id, first_id + table.num_rows)
    numbers = read_column(table, name).as_numbers()
    odd = ~(np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 2.0**53))
    if odd.any():
        raise DataError(
            f"`id_column: {name}` must hold a whole number per row, but "
            f"{count_rows(int(odd.sum()))} hold others: {examples(numbers[odd].tolist())} "
            "(NaN: none)"
        )
    return numbers.astype(np.int64)


def arrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.compute`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    return pa, pc


def _without_markers(texts: Any) -> Any:
    pa, pc = arrow()
    marked = pc.is_in(texts, value_set=pa.array(_MARKERS, texts.type))
    return pc.if_else(marked, pa.scalar(None, texts.type), texts)


def _whole_if_so(numbers: NDArray[np.float64]) -> NDArray[Any]:
    known = numbers[~np.isnan(numbers)]
    return known.astype(np.int64) if np.all(known == np.round(known)) else known
