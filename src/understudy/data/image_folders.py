"""The source `images`: one folder per class, as image collections are usually kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from understudy.data.decoding import Decoder, OnBadRows, asked_size
from understudy.data.files import find_folder
from understudy.data.rows import Rows, with_test
from understudy.data.wording import quoted
from understudy.errors import DataError

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)
_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_UNLABELLED = "unlabelled"
_BATCH = 4096


def images(
    *,
    path: str,
    size: list[int] | None = None,
    test_path: str | None = None,
    grayscale: bool = False,
    on_bad_rows: OnBadRows = "error",
) -> Rows:
    """Images from a folder with one folder per class, in sorted order, as uint8.

    Files of a folder `unlabelled` are unlabelled rows. Folders inside a class's folder are
    searched too; files that are no images by their suffix are passed over.

    Args:
        path: the folder of class folders; their sorted names are the classes.
        size: [height, width] that every image is brought to; without it all have one size.
        test_path: such a folder with the source's own test rows.
        grayscale: one channel instead of three.
        on_bad_rows: `skip` leaves out images that cannot be decoded.

    Raises:
        DataError: there are no images, or some cannot be decoded or differ in size.
    """
    decoder = Decoder(size=asked_size(size), grayscale=grayscale, on_bad_rows=on_bad_rows)
    root = find_folder(path, "path")
    classes = _classes(root)
    train, total = _read(root, classes, decoder, first_id=0)
    if test_path is None:
        return train
    test_root = find_folder(test_path, "test_path")
    unknown = set(_classes(test_root)) - set(classes)
    if unknown:
        raise DataError(
            f"test classes must be among the {len(classes)} classes of the training folder, but "
            f"{test_root} has {quoted(sorted(unknown))} besides: add them to {root}, or remove them"
        )
    return with_test(train, _read(test_root, classes, decoder, first_id=total)[0])


def _classes(root: Path) -> tuple[str, ...]:
    names = sorted(item.name for item in root.iterdir() if _visible_folder(item))
    classes = tuple(name for name in names if name != _UNLABELLED)
    if not classes:
        raise DataError(f"{root} must hold one folder of images per class, but holds no folder")
    if set(classes) <= _SPLITS:
        raise DataError(
            f"{root} must hold one folder of images per class, but holds {quoted(classes)}, which "
            f"look like splits: say `path: {root / classes[-1]}` and `test_path` for the other"
        )
    return classes


def _visible_folder(item: Path) -> bool:
    return item.is_dir() and not item.name.startswith(".")


def _read(
    root: Path, classes: Sequence[str], decoder: Decoder, *, first_id: int
) -> tuple[Rows, int]:
    files, labels = [], []
    for number, name in [*enumerate(classes), (-1, _UNLABELLED)]:
        found = _image_files(root / name)
        files += found
        labels += [number] * len(found)
    if not files:
        raise DataError(
            f"{root} must hold images ({quoted(sorted(_SUFFIXES))}) in its class folders, "
            "but holds none"
        )
    names = tuple((root.name / file.relative_to(root)).as_posix() for file in files)
    pixels, kept = decoder(_batches(files), total=len(files), name=lambda at: names[at])
    rows = Rows(
        inputs=pixels,
        labels=np.array(labels, np.int64)[kept],
        ids=kept + first_id,
        form="image",
        classes=tuple(classes),
        names=tuple(names[at] for at in kept),
        skipped=len(files) - len(kept),
    )
    return rows, len(files)


def _image_files(folder: Path) -> list[Path]:
    found = (item for item in folder.rglob("*") if item.suffix.lower() in _SUFFIXES)
    visible = (item for item in found if item.is_file() and not item.name.startswith("."))
    return sorted(visible, key=lambda item: item.relative_to(folder).as_posix())


def _batches(files: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), _BATCH):
        yield files[start : start + _BATCH]
