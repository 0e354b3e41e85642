"""What a person sees while a command runs and when it is done."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from understudy.cli.arguments import many

SECONDS_BETWEEN_LINES = 10.0


class Bars:
    """Live bars in a terminal, plain lines elsewhere; everything on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        """Show everything, or nothing."""
        self._console = Console(stderr=True, quiet=quiet, emoji=False)

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(line, highlight=False, markup=False)

    @contextmanager
    def track(self, name: str, total: int, unit: str) -> Iterator[Any]:
        """One piece of work: a bar with rate and time left, or a line now and then."""
        if self._console.is_terminal:
            with self._bar(unit) as bar:
                task = bar.add_task(name, total=total)
                yield lambda done, note="": bar.update(
                    task, completed=done, description=name + _of(note)
                )
            return
        yield from self._lines(name, total, unit)

    def _bar(self, unit: str) -> Progress:
        return Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(unit),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=False,
        )

    def _lines(self, name: str, total: int, unit: str) -> Iterator[Any]:
        started = said = time.monotonic()

        def tracker(done: int, note: str = "") -> None:
            nonlocal said
            now = time.monotonic()
            if now - said < SECONDS_BETWEEN_LINES:
                return
            said = now
            rate = done / max(now - started, 1e-9)
            left = (total - done) / max(rate, 1e-9)
            self.say(f"{name}{_of(note)}: {done}/{total} {unit}, {rate:,.1f}/s, {left:,.0f} s left")

        yield tracker
        self.say(f"{name}: {total} {unit} in {time.monotonic() - started:,.1f} s")


class _Rate(TextColumn):
    """Units per second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Any:
        """The rate, once there is one."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


def _of(note: str) -> str:
    return f" ({note})" if note else ""


def result(record: Any, *, as_json: bool) -> None:
    """The result of a run: a table and a sentence, or one line of JSON."""
    if as_json:
        sys.stdout.write(json.dumps(record.summary()) + "\n")
        return
    # Names come from the user's data: nothing in them is markup.
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, width=100)
    data = record.data
    console.print(_table(data))
    verdict = data["verdict"]
    word = Text(verdict["word"], style="bold")
    console.print(word.append(f"  {verdict['sentence']}", style="not bold"), highlight=False)
    for check in data["budget"]["checks"]:
        state = "within" if check["met"] else "OUTSIDE"
        limit, measured = _number(check["limit"]), _number(check["measured"])
        console.print(f"budget: {check['name']} {measured} is {state} {limit}", highlight=False)
    for note in data["warnings"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    ratio = data["deployed"].get("speedup_quantized")
    if ratio is not None:
        form = data.get("quantized") or "int8"
        pace = f"{ratio:.1f} times as fast as" if ratio >= 1.05 else "not faster than"
        console.print(f"{form}: {pace} the float file for one row here", highlight=False)
    for name in ("onnx", "onnx_int8", "report"):
        if data["files"].get(name):
            label = {"onnx": "model", "onnx_int8": "model (int8)", "report": "report"}[name]
            console.print(f"{label:<13} {data['files'][name]}", highlight=False, soft_wrap=True)


def _table(data: Mapping[str, Any]) -> Table:
    primary = data["primary"]["name"]
    table = Table(
        box=SIMPLE,
        title=f"{data['name']}: {many(len(data['seeds']), 'seed')}, "
        f"{many(data['rows']['test'], 'test row')}",
    )
    heads = ("model", primary, "95 % interval", "parameters", "bytes", "ms, 1 row", "ms, 32 rows")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 else "right", no_wrap=True)
    for name, model in data["models"].items():
        score = model["scores"].get(primary)  # a teacher is not scored against itself
        latency = model["latency_ms"]
        table.add_row(
            _shown(name, data),
            "-" if score is None else f"{score['value']:.4f}",
            "-" if score is None else f"{score['low']:.4f}–{score['high']:.4f}",
            _number(model["parameters"]),
            _number(model["bytes"]),
            _number(latency["batch1"], 3),
            _number(latency["batch32"], 3),
        )
    return table


def _shown(name: str, data: Mapping[str, Any]) -> str:
    form = data.get("quantized")
    return (f"student {form}" if name == "student_int8" and form else name).replace("_", " ")


def _number(value: float | int | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A plain table on standard output."""
    table = Table()
    for name in head:
        table.add_column(name)
    for line in lines:
        table.add_row(*line)
    Console(markup=False, emoji=False).print(table)


def size(count: int) -> str:
    """Bytes as a person reads them."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.0f} {units[0]}" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def write(text: str) -> None:
    """Text on standard output, as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
