"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
RunPath = Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change one setting: section.field=value. Repeatable.", metavar="A=B"
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="The run's folder (default: runs/NAME).")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="The first seed; the others follow it.", min=0, max=2**32 - 10_001),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")]


def many(count: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
