"""Finding and opening the files that a recipe names."""

import gzip
from difflib import get_close_matches
from io import BufferedReader
from pathlib import Path

from understudy.errors import DataError

_GZIP = b"\x1f\x8b"


def find_file(path: str, option: str) -> Path:
    """The file that `option` names.

    Raises:
        DataError: there is no such file; a like name beside it is suggested.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError(f"`{option}` must name a file, but {_absence(found)}")
    return found


def find_folder(path: str, option: str) -> Path:
    """The folder that `option` names.

    Raises:
        DataError: there is no such folder; a like name beside it is suggested.
    """
    found = Path(path).expanduser()
    if not found.is_dir():
        raise DataError(f"`{option}` must name a folder, but {_absence(found)}")
    return found


def open_plain_or_gzip(path: Path) -> gzip.GzipFile | BufferedReader:
    """A file's content, unpacked if it begins as gzip does, whatever it is called."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")


def split_key(path: str) -> tuple[str, str | None]:
    """`file.npz:key` or `file.json:key` as the file and the key; None where no key is written."""
    name, mark, key = path.rpartition(":")
    if mark and name.lower().endswith((".npz", ".json")):
        return name, key
    return path, None


def _absence(path: Path) -> str:
    if path.exists():
        return f"{path} is a {'folder' if path.is_dir() else 'file'}"
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder.absolute()} does not exist: correct the path"
    near = get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    hint = f"did you mean `{folder / near[0]}`?" if near else "correct the path"
    return f"{path.absolute()} does not exist: {hint}"
