"""A picture file becomes one raw row `[height, width, channels]`."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed.session import Deployed
from understudy.errors import DataError, MissingExtraError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(file: Path, deployed: Deployed) -> NDArray[Any]:
    """One picture as a raw row, in the model's own channels and type.

    Colours become greys, or greys colours, as the model needs it. The size must be the model's,
    unless its metadata says `resize: true`. Where the metadata has `scale`, white is that number
    in a raw row rather than 255 (16 in scikit-learn's digits).

    Raises:
        DataError: the model takes no pictures, or this one is damaged or has another size.
        MissingExtraError: Pillow is not installed.
    """
    try:
        pillow: Any = import_module("PIL.Image")
    except ImportError as error:
        raise MissingExtraError("Pillow", "train") from error
    shape = deployed.input_shape
    channels = shape[2] or 0 if len(shape) == 3 else 0
    mode = _MODES.get(channels)
    if mode is None:
        raise DataError(
            f"{deployed.path.name} takes rows {list(shape)}, which is no picture "
            f"[height, width, channels], so {file.name} cannot be given to it; use an array"
        )
    try:
        with pillow.open(file) as opened:
            if opened.mode.startswith(("I", "F")):
                raise DataError(
                    f"{file} must have 8 bits per channel, but its mode is {opened.mode}; "
                    "convert it, or give its values as an array"
                )
            picture = opened.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a picture: {error}; save it again") from error
    picture = _sized(picture, shape, file, deployed, pillow)
    pixels = np.asarray(picture, np.uint8).reshape(picture.height, picture.width, channels)
    return _scaled(pixels, deployed)


def _sized(
    picture: Any, shape: tuple[int | None, ...], file: Path, deployed: Deployed, pillow: Any
) -> Any:
    size = (shape[1] or picture.width, shape[0] or picture.height)
    if picture.size == size:
        return picture
    if deployed.metadata.get("resize"):
        return picture.resize(size, pillow.Resampling.BILINEAR)
    raise DataError(
        f"pictures must be {size[0]} wide and {size[1]} high for {deployed.path.name}, "
        f"but {file.name} is {picture.width} wide and {picture.height} high; resize it as the "
        "training pictures were"
    )


def _scaled(pixels: NDArray[np.uint8], deployed: Deployed) -> NDArray[Any]:
    scale = deployed.metadata.get("scale")
    if scale is None:
        return pixels.astype(deployed.input_dtype)
    values = pixels * (float(scale) / 255)
    whole = np.issubdtype(deployed.input_dtype, np.integer)
    return (np.rint(values) if whole else values).astype(deployed.input_dtype)
