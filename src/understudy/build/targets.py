"""What is the user's own: `package.module:name` or `path/to/file.py:name` to the object."""

import importlib
import importlib.util
import os
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from understudy.errors import did_you_mean
from understudy.folders import file_checksum


class TargetError(ValueError):
    """A target that cannot be had; the message is a law for the list of mistakes."""


def resolve(target: str, folder: Path) -> Any:
    """The object that a target names.

    Args:
        target: as it stands in the recipe.
        folder: where a relative file path starts, the recipe's own folder.

    Raises:
        TargetError: no such file, module or name, or the module fails while it is imported.
    """
    place, _, name = target.rpartition(":")
    module = _from_file(folder / place) if place.endswith(".py") else _from_package(place)
    if not hasattr(module, name):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise TargetError(f"`{place}` has no `{name}`: {did_you_mean(name, known)}")
    found = getattr(module, name)
    if not callable(found):
        raise TargetError(f"`{target}` must be callable, but is a {type(found).__name__}")
    return found


def _from_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise TargetError(f"the file {path} of this target does not exist: correct the path")
    # A name of its own per path: two files called network.py may serve in one run.
    name = f"understudy_target_{sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise TargetError(f"{path} fails while it is imported: {_short(error)}") from error
    return module


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise TargetError(
            f"the module `{name}` cannot be imported ({_short(error)}): install it, or write "
            "the path of a file, `path/to/file.py:name`"
        ) from error


def told(error: Exception) -> str:
    """An exception of the user's code in a line: its type, its words, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{_short(error)}{place}"


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".strip(": ")


def sources(target: str, folder: Path) -> dict[str, str]:
    """Checksums of the files that a target's behaviour is written in, by their path from its own.

    Its own file, and those beside or below it that its module uses, whatever they are imported
    as: changed code is another teacher, student or loss, although no weight has moved.
    """
    found = resolve(target, folder)
    start = sys.modules.get(getattr(found, "__module__", None) or type(found).__module__)
    waiting, files = [start], {}
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if module is None or not file or not file.endswith(".py") or file in files:
            continue
        files[file] = file_checksum(Path(file))
        home = Path(file).parent
        for value in list(vars(module).values()):
            name = getattr(value, "__module__", None)
            near = value if isinstance(value, ModuleType) else sys.modules.get(name or "")
            place = getattr(near, "__file__", None)
            if place and home in Path(place).parents:
                waiting.append(near)
    base = Path(getattr(start, "__file__", None) or folder).parent
    return {os.path.relpath(file, base): checksum for file, checksum in sorted(files.items())}
