"""`understudy labels`: what is in a store, whether it is whole, and what the next one will take."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.arguments import Json, Out, RecipePath, Settings

if TYPE_CHECKING:
    from understudy.labels.manifest import Manifest

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into a label store.")

StorePath = Annotated[
    Path, typer.Argument(help="A label store, or a run that has one.", metavar="STORE")
]


@app.command()
def info(store: StorePath, as_json: Json = False) -> None:
    """Say what is in a store. Reads its manifest only."""
    from understudy.cli.show import rows, size

    address, manifest = _manifest(store)
    if as_json:
        data = manifest.to_data()
        del data["shards"]
        more = {"bytes": manifest.bytes, "files": len(manifest.shards), "store": address}
        typer.echo(json.dumps(data | more))
        return
    first, count = manifest.views
    told: list[tuple[str, Any]] = [
        ("store", address),
        ("state", "complete" if manifest.complete else "not finished"),
        ("rows", f"{manifest.rows:,} in {len(manifest.shards):,} shards"),
        ("views", f"{first}" if count == 1 else f"{first} to {first + count - 1}"),
        ("size", _size(manifest.bytes, manifest.rows, size)),
        ("left out", f"{manifest.skipped:,} rows"),
    ]
    for name, field in manifest.fields.items():
        how = ", ".join(f"{k} {v}" for k, v in field.parameters.items())
        ragged = ", sequences" if field.ragged else ""
        told.append(
            (name, f"{field.codec} ({how or 'no parameters'}), {list(field.shape)}{ragged}")
        )
    told += [(f"fingerprint: {name}", mark) for name, mark in manifest.fingerprints.items()]
    for name, value in manifest.made.items():
        told.append((f"made with: {name}", value if isinstance(value, str) else json.dumps(value)))
    rows(("", "labels"), told)


def _size(total: int, rows: int, size: Any) -> str:
    return f"{size(total)}, {total / rows:,.1f} bytes per row" if rows else size(total)


@app.command()
def verify(store: StorePath) -> None:
    """Read a whole store once and compare every checksum."""
    from understudy.labels.store import LabelStore

    opened = LabelStore(_folder(store))
    opened.verify()
    shards = len(opened.manifest.shards)
    typer.echo(f"{opened.folder} is whole: {len(opened):,} rows, {shards:,} shards")


@app.command()
def export(
    store: StorePath,
    out: Annotated[
        Path, typer.Option("--out", help="A file that ends in .parquet or .arrow.")
    ] = Path("labels.parquet"),
) -> None:
    """Write a store as Parquet or Arrow columns, for other trainers."""
    from understudy.errors import RunError
    from understudy.labels.columns import export_columns
    from understudy.labels.store import LabelStore

    if out.exists():
        raise RunError(f"{out} exists already, and `export` never overwrites: name another file")
    found = export_columns(LabelStore(_folder(store)), out)
    typer.echo(f"wrote {out}: {found.rows:,} rows")
    if found.left_out:
        typer.echo(
            f"left out: {found.left_out:,} rows, {found.skipped:,} that are not in the store since "
            f"the teacher's answer was not finite, {found.partial:,} whose id lacks another view"
        )


@app.command()
def estimate(
    recipe: RecipePath, settings: Settings = None, out: Out = None, as_json: Json = False
) -> None:
    """Ask the teacher for a few rows, and work out bytes and time of all."""
    from understudy import build
    from understudy.cli.show import Bars, rows, size
    from understudy.pipeline.estimating import estimate as work_out

    loaded, place = build.checked(recipe, settings or [])
    found = work_out(loaded, place, out=out, progress=Bars(quiet=as_json))
    if as_json:
        names = ("rows", "sampled", "bytes", "seconds", "free", "copy", "fits")
        typer.echo(json.dumps({name: getattr(found, name) for name in names}))
        return
    enough = ": NOT ENOUGH" if found.fits is False else ""
    told = [
        ("rows", f"{found.rows:,} (from {found.sampled:,} measured)"),
        ("size", f"{size(found.bytes)} in {found.folder}"),
        ("time", f"{found.seconds:,.0f} s"),
        ("free there", "unknown behind a URL" if found.free is None else size(found.free) + enough),
    ]
    if found.copy is not None:
        told.append(("free here, for the run's copy", size(found.copy) + enough))
    rows(("", "estimate"), told)


def _manifest(path: Path) -> tuple[str, "Manifest"]:
    """Where the store of a path lies, and its manifest."""
    from understudy.labels.manifest import read_manifest

    named = _named_by_run(path)
    if not isinstance(named, str):
        folder = named or _inside(path)
        return str(folder), read_manifest(folder)
    from understudy.errors import StoreError
    from understudy.labels.place import manifest_at
    from understudy.labels.remote_place import open_place

    found = manifest_at(open_place(named))
    if found is None:
        raise StoreError(f"{named} is no label store yet: run `understudy label` first")
    return named, found


def _folder(path: Path) -> Path:
    """The folder of the store itself, or of the one of a run; of one behind a URL, the copy."""
    from understudy.errors import StoreError

    named = _named_by_run(path)
    if not isinstance(named, str):
        return named or _inside(path)
    copy = path / "labels"
    if not (copy / "manifest.json").is_file():
        raise StoreError(
            f"the labels of {path} lie in {named}, and the run has no copy of them yet: run "
            "`understudy label` first"
        )
    return copy


def _inside(path: Path) -> Path:
    inside = path / "labels"
    return inside if (inside / "manifest.json").is_file() else path


def _named_by_run(path: Path) -> Path | str | None:
    """What the recipe of a run names as `labels.store`, a folder or a URL; None without any."""
    from understudy.errors import RecipeError
    from understudy.recipe import loads

    if (path / "manifest.json").is_file():
        return None  # a store, whatever else lies beside it
    try:
        text = (path / "recipe.yaml").read_text(encoding="utf-8")
        start = re.match(r"# .*; relative paths start from (.*)\n", text)
        recipe, place = loads(text, folder=Path(start.group(1)) if start else path)
    except (OSError, RecipeError):
        return None  # no run, or one of another version, whose own labels can still be shown
    store = recipe.labels.store
    return store if store is None or "://" in store else place.resolve(store)
