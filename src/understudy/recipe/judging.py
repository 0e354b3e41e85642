"""How a recipe says what vectors are judged by: pairs that people scored, and linear probes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from understudy.recipe.parts import Count, Entry, Part

# A column by its name, or by its number from 1 in a file whose first line names none.
ColumnName = Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=1)]


class PairsSection(Part):
    """Pairs of texts and how alike people found them; the order counts, not the scale.

    `first`, `second` and `score` are columns: by name, or all three by number from 1 where the
    first line of the file is a pair already.
    """

    path: str
    first: ColumnName
    second: ColumnName
    score: ColumnName
    delimiter: str | None = None
    quoted: bool = True
    encoding: str = "utf-8"

    @model_validator(mode="after")
    def _one_way(self) -> "PairsSection":
        columns = (self.first, self.second, self.score)
        if len({type(column) for column in columns}) > 1:
            raise ValueError(
                "`first`, `second` and `score` must be three names or three numbers, but got "
                f"{', '.join(map(repr, columns))}"
            )
        if len(set(columns)) < len(columns):
            raise ValueError(f"three columns must differ, but got {', '.join(map(repr, columns))}")
        return self


class ProbeSection(Part):
    """Labelled texts for a linear probe: a logistic regression on frozen vectors.

    `rows` is how many it is fitted on at most, `test` what it is judged by: as in `data`.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w .-]*$")]
    source: Entry
    test: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | Literal["given"] = 0.2
    rows: Count | None = 4000
