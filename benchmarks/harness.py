"""What every benchmark writes down: its figures, and what they were measured with."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "lightning",
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "transformers",
)


def mode() -> str:
    """`full` where the environment says FULL=1, else `reduced`."""
    return "full" if os.environ.get("FULL") == "1" else "reduced"


def record(
    name: str,
    figures: Mapping[str, float],
    *,
    seeds: Sequence[int],
    mode: str,
    results: Path = RESULTS,
) -> Path:
    """Write `results/<name>.json`: figures by name, and what they were measured with.

    Args:
        name: of the benchmark; a name for a file.
        figures: plain numbers by name. NaN is refused, JSON has none.
        seeds: every seed that was used.
        mode: `reduced` or `full`.
        results: the folder.
    """
    path = results / f"{name}.json"
    content = {
        "figures": dict(figures),
        "mode": mode,
        "seeds": list(seeds),
        "environment": environment(),
        "commit": commit(),
    }
    write(path, content)
    return path


class Progress:
    """The finished parts of a long benchmark, so that one that was stopped goes on where it was.

    Each part is a small JSON file in `results/<name>/<mode>/`. Nothing notices that the code has
    changed since a part was measured: delete the folder to measure again.
    """

    def __init__(self, name: str, *, results: Path = RESULTS) -> None:
        self.folder = results / name / mode()

    def get(self, part: str) -> Any | None:
        """What was kept of a part, or None where it is not finished."""
        path = self._path(part)
        return json.loads(path.read_text()) if path.exists() else None

    def keep(self, part: str, value: Any) -> Any:
        """Keep a finished part, and give it back as it will be read."""
        write(self._path(part), value)
        return self.get(part)

    def finished(self) -> dict[str, Any]:
        """Every part that is finished, by name."""
        paths = sorted(self.folder.glob("*.json"))
        return {path.stem: json.loads(path.read_text()) for path in paths}

    def _path(self, part: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", part):
            raise ValueError(
                f"a part is named with letters, digits, `-`, `_` and `.`, not {part!r}"
            )
        return self.folder / f"{part}.json"


def write(path: Path, content: Any) -> None:
    """Write JSON so that a reader finds the old file or the whole new one. NaN is refused."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader finds the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def paste(text: str, *, name: str, page: Path) -> None:
    """Put measured text into a page, between `<!-- name -->` and `<!-- end name -->`.

    Raises:
        ValueError: the page has not both marks, once each.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    old = page.read_text()
    if old.count(begin) != 1 or old.count(end) != 1:
        raise ValueError(f"{page} must hold `{begin}` and `{end}` once each")
    head, rest = old.split(begin)
    write_text(page, f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def environment() -> dict[str, Any]:
    """Python, platform, processor, threads and library versions; loads no library for it."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "libraries": {},
    }
    for library in LIBRARIES:
        try:
            found["libraries"][library] = version(library)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def cpu() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that was measured, with `-dirty` where files have changed since; or `unknown`."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        # Results are written by the very scripts that ask: they do not make a tree dirty.
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", ":/", ":!results"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head
