"""What a model of a recipe is a function of beyond its words: the files that its folder holds now.

A name of a hub stands for other weights tomorrow, so it counts as the commit that it stands for.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy import build
from understudy.folders import file_checksum
from understudy.recipe import Entry, Source
from understudy.teachers.hf_model import revision

# Large models are divided over several files; a sentence encoder's parts have folders of their own.
_FILES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "hf_encoder": ("config.json", "*.safetensors"),
        # The tokens that end its texts may stand in a file of their own.
        "hf_causal": ("config.json", "generation_config.json", "*.safetensors"),
        "hf_classifier": ("*.json", "*.safetensors"),
        "sentence_encoder": ("*.json", "*.safetensors", "*/*.json", "*/*.safetensors"),
    }
)


def model_marks(entry: Entry | None, place: Source) -> dict[str, str]:
    """The checksums of a model's files by their names, or the commit of a name of the hub.

    Empty for models that have no folder.

    Raises:
        ModelError: there is no such name.
    """
    if entry is None or entry.kind not in _FILES:
        return {}
    folder = build.folder(str(entry.parameters["folder"]), place)
    home = place.resolve(folder)
    if not home.is_dir():
        return revision(folder)
    files = sorted(file for pattern in _FILES[entry.kind] for file in home.glob(pattern))
    return {file.relative_to(home).as_posix(): file_checksum(file) for file in files}
