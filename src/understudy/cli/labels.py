"""`understudy labels`: what is in a store, whether it is whole, and what the next one will take."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli.arguments import Json, Out, RecipePath, Settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into a label store.")

StorePath = Annotated[
    Path, typer.Argument(help="A label store, or a run that has one.", metavar="STORE")
]


@app.command()
def info(store: StorePath, as_json: Json = False) -> None:
    """Say what is in a store. Reads its manifest only."""
    from understudy.cli.show import rows, size
    from understudy.labels.manifest import read_manifest

    manifest = read_manifest(_folder(store))
    if as_json:
        data = manifest.to_data()
        del data["shards"]
        typer.echo(json.dumps(data | {"bytes": manifest.bytes, "files": len(manifest.shards)}))
        return
    first, count = manifest.views
    told: list[tuple[str, Any]] = [
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
    told += [(f"made with: {name}", value) for name, value in manifest.made.items()]
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
    count = export_columns(LabelStore(_folder(store)), out)
    typer.echo(f"wrote {out}: {count:,} rows")


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
        told = {name: getattr(found, name) for name in ("rows", "sampled", "bytes", "free")}
        typer.echo(json.dumps(told | {"seconds": found.seconds, "fits": found.fits}))
        return
    rows(
        ("", "estimate"),
        [
            ("rows", f"{found.rows:,} (from {found.sampled:,} measured)"),
            ("size", f"{size(found.bytes)} in {found.folder}"),
            ("time", f"{found.seconds:,.0f} s"),
            ("free there", size(found.free) + ("" if found.fits else ": NOT ENOUGH")),
        ],
    )


def _folder(path: Path) -> Path:
    """The store itself, or the one of a run."""
    inside = path / "labels"
    return inside if (inside / "manifest.json").is_file() else path
