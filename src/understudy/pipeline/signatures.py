"""What an entry of a recipe is a function of beyond its words: data files, code, other files."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from understudy import build
from understudy.build.parts import PATHS, named_files, with_paths
from understudy.folders import file_checksum
from understudy.recipe import Entry, Source


def signatures(entry: Entry, place: Source) -> dict[str, Any]:
    """What an entry is a function of beyond its parameters: files that it names, and its own code.

    Size and time of data files (cheap, and changed when they are); checksums of the user's code,
    and of other files that its arguments name, from the recipe's folder or from where it is run.
    """
    if entry.kind == "custom":
        signs: dict[str, Any] = dict(build.sources(entry.parameters["target"], place.folder))
        arguments = entry.parameters.get("arguments", {})
        signs |= _checksums(arguments, place)
        found = with_paths(arguments, place)
    else:
        signs, found = {}, with_paths(entry.parameters, place)
    for name, value in found.items():
        if name in PATHS and isinstance(value, str):
            states = [file.stat() for file in named_files(value)]
            if states:
                signs[name] = [[state.st_size, state.st_mtime_ns] for state in states]
    return signs


def _checksums(arguments: Mapping[str, Any], place: Source) -> dict[str, Any]:
    """Of the files that arguments of the user's own code name."""
    named = {n: v for n, v in arguments.items() if n not in PATHS and isinstance(v, str) and v}
    found: dict[str, Any] = {}
    for name, value in named.items():
        with suppress(OSError, ValueError):  # any text may stand there, of any length
            # Which of the two the code opens is not known, so both count.
            files = [path for path in (place.resolve(value), Path(value)) if path.is_file()]
            if files:
                found[f"file of {name}"] = sorted({file_checksum(path) for path in files})
    return found
