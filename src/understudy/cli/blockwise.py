"""The command `blockwise`: divide, teach each part alone, recombine under a budget."""

import json
from typing import Annotated, Literal

import typer

from understudy.cli.arguments import Json, Out, Quiet, RecipePath, Settings
from understudy.errors import RunError

Until = Literal["partition", "candidates", "choice", "report"]


def blockwise(
    recipe: RecipePath,
    settings: Settings = None,
    out: Out = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="Another budget (ms, parameters, bytes, flops, memory; a number or 50%): choose "
            "again from what was taught, train nothing. Repeatable.",
            metavar="COST=LIMIT",
        ),
    ] = None,
    until: Annotated[
        Until, typer.Option("--until", help="The last part that is wanted.")
    ] = "report",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put a student together from parts of its teacher, each taught alone, and train it."""
    from understudy.blockwise.running import run
    from understudy.cli.show import Bars, result, write

    found = run(
        recipe,
        out=out,
        settings=settings or [],
        progress=Bars(quiet=quiet),
        until=until,
        budget=_limits(budget or []),
    )
    if found.record.data.get("verdict"):
        if not as_json:
            write("\n".join(found.lines))
        result(found.record, as_json=as_json)
    elif as_json:
        write(json.dumps(found.data))
    elif found.lines:
        write("\n".join(found.lines))


def _limits(given: list[str]) -> dict[str, str]:
    limits: dict[str, str] = {}
    for text in given:
        for one in text.split(","):
            name, equals, value = one.partition("=")
            if not equals or not name.strip() or not value.strip():
                raise RunError(
                    "`--budget` takes COST=LIMIT, such as ms=0.5 or parameters=50%, but got "
                    f"{one!r}"
                )
            limits[name.strip()] = value
    return limits
