"""The commands. Each does little: it reads its arguments, calls one room, shows the result."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from understudy.cli import blockwise, labels, predicting
from understudy.cli.arguments import Json, Out, Quiet, RecipePath, RunPath, Seed, Settings, many
from understudy.errors import RunError, did_you_mean

app = typer.Typer(
    name="understudy",
    help="Turn a large model into a small one that can replace it, and prove that it can.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(labels.app, name="labels")
app.command(name="blockwise")(blockwise.blockwise)

Until = Literal["labels", "export", "evaluate", "report"]


def _version(wanted: bool | None) -> None:
    if wanted:
        from understudy import __version__

        typer.echo(f"understudy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    del version


def _load(recipe: Path, settings: list[str] | None, seed: int | None) -> Any:
    from understudy import build

    loaded, place = build.checked(recipe, settings or [])
    return _seeded(loaded, seed), place


def _seeded(recipe: Any, seed: int | None) -> Any:
    if seed is None:
        return recipe
    count = len(recipe.seed_list)
    return recipe.model_copy(update={"seeds": tuple(range(seed, seed + count))})


def _run(recipe: Any, place: Any, *, out: Path | None, quiet: bool, until: Until = "report") -> Any:
    from understudy.cli.show import Bars
    from understudy.pipeline import run

    return run(recipe, place=place, out=out, progress=Bars(quiet=quiet), until=until)


@app.command()
def demo(
    settings: Settings = None,
    out: Out = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distil scikit-learn's digits: five seeds, student and control, ONNX, report."""
    from understudy import build
    from understudy import recipe as recipes
    from understudy.cli.show import result

    text = recipes.starter("demo.yaml")
    loaded, place = build.checked(Path("demo.yaml"), settings or [], text=text)
    record = _run(_seeded(loaded, seed), place, out=out, quiet=quiet)
    if record.data.get("verdict"):  # only the first process of several has one
        result(record, as_json=as_json)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write.", metavar="FILE")] = Path(
        "recipe.yaml"
    ),
) -> None:
    """Write a commented starter recipe and the schema that editors complete it by."""
    from understudy.build import schema
    from understudy.folders import make_folder, write_atomic
    from understudy.recipe import starter

    if path.exists():
        raise RunError(f"{path} exists already, and `init` never overwrites: name another file")
    make_folder(path.parent)
    write_atomic(path, starter(path.name))
    write_atomic(path.parent / "understudy.schema.json", json.dumps(schema(), indent=1) + "\n")
    typer.echo(f"wrote {path}: check it with `understudy check {path}`")


@app.command()
def check(recipe: RecipePath, settings: Settings = None, as_json: Json = False) -> None:
    """Look for every mistake in a recipe without running any of it."""
    loaded, _ = _load(recipe, settings, None)
    arms = "student and control" if loaded.has_control else "student, without a control"
    epochs = sum(p.training.epochs for p in loaded.phases)
    if as_json:
        typer.echo(json.dumps({"recipe": str(recipe), "mistakes": 0}))
    else:
        seeds = many(len(loaded.seed_list), "seed")
        typer.echo(f"{recipe} is fine: {seeds} of {arms}, {many(epochs, 'epoch')} each")


@app.command()
def plan(
    recipe: RecipePath, settings: Settings = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Show what the student will be, and what it will cost, without training anything."""
    from understudy.cli.show import Bars, write
    from understudy.pipeline.planning import plan as planned

    loaded, place = _load(recipe, settings, None)
    found = planned(loaded, place, progress=Bars(quiet=quiet))
    if as_json:
        typer.echo(json.dumps(found.data | {"notes": found.notes}))
        return
    write("\n".join([*found.lines, *(f"note: {note}" for note in found.notes)]))


@app.command()
def run(
    recipe: RecipePath,
    settings: Settings = None,
    out: Out = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe from the data to the report; go on with a run that stopped."""
    from understudy.cli.show import result

    loaded, place = _load(recipe, settings, seed)
    record = _run(loaded, place, out=out, quiet=quiet)
    if record.data.get("verdict"):
        result(record, as_json=as_json)


@app.command()
def label(
    recipe: RecipePath,
    settings: Settings = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Run a recipe up to the teacher's stored labels."""
    loaded, place = _load(recipe, settings, None)
    _run(loaded, place, out=out, quiet=quiet, until="labels")


@app.command()
def export(
    recipe: RecipePath,
    settings: Settings = None,
    out: Out = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> None:
    """Run a recipe up to the exported ONNX files."""
    loaded, place = _load(recipe, settings, seed)
    _run(loaded, place, out=out, quiet=quiet, until="export")


@app.command()
def evaluate(
    recipe: RecipePath,
    settings: Settings = None,
    out: Out = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe up to the scores and the verdict, without the report."""
    from understudy.cli.show import result

    loaded, place = _load(recipe, settings, seed)
    record = _run(loaded, place, out=out, quiet=quiet, until="evaluate")
    if record.data.get("verdict"):
        result(record, as_json=as_json)


@app.command()
def report(run: RunPath) -> None:
    """Draw a run's report again from its run.json."""
    from understudy.report.page import write_report
    from understudy.report.record import RunRecord

    file = run / "run.json" if run.is_dir() else run
    if file.name != "run.json" or not file.is_file():
        raise RunError(
            f"{run} is no run's folder, it has no run.json: `understudy run RECIPE` makes one"
        )
    record = RunRecord.load(file)
    path = (run if run.is_dir() else run.parent) / "report.html"
    write_report(record, path)
    typer.echo(path)


app.command(name="predict")(predicting.predict)


@app.command()
def methods(
    kind: Annotated[
        str | None, typer.Argument(help="One loss, for its page.", metavar="KIND")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the losses that an objective is made of."""
    from understudy.cli import catalogue
    from understudy.cli.show import rows, write

    known = catalogue.entries()
    if kind is not None and kind not in known:
        raise RunError(f"there is no method `{kind}`: {did_you_mean(kind, known)}")
    if as_json:
        write(json.dumps(known[kind] if kind else list(known.values())))
    elif kind:
        write(catalogue.page(known[kind]))
    else:
        head = ("kind", "family", "needs", "paper")
        rows(
            head,
            [
                (k, v["family"], catalogue.needs(v, none="-"), catalogue.cited(v["paper"]))
                for k, v in known.items()
            ],
        )


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe."""
    from understudy.build import schema as make

    typer.echo(json.dumps(make(), indent=1))
