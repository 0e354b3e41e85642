"""More sentences about films, without labels: what a student may learn from beside SST-2."""

import re
import zipfile
from pathlib import Path

from cifar_loops import folder

# So many words in a row are shared with a sentence that is judged: it is left out.
RUN = 6


def films(path: Path) -> int:
    """Write plots and reviews that are in no part of SST-2 as a TSV; how many."""
    parts = {part: [text for text, _ in sst2(part)] for part in ("train", "dev", "test")}
    known = {_key(text) for texts in parts.values() for text in texts}
    runs = {run for part in ("dev", "test") for text in parts[part] for run in _runs(text)}
    kept = [
        text
        for text in dict.fromkeys(_sentences())
        if _key(text) not in known and runs.isdisjoint(_runs(text))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["label\tsentence", *(f"\t{text}" for text in kept), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return len(kept)


def sst2(part: str) -> list[tuple[str, int]]:
    """The texts and labels of one of SST-2's files."""
    path = folder() / "sst2" / f"glue_{part}.tsv"
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:])
    return [(cells[1].strip(), int(cells[0])) for cells in lines if len(cells) > 1]


def _sentences() -> list[str]:
    """Every line of the two archives of sentences about films."""
    found: list[str] = []
    for path in sorted((folder() / "sentence-polarity").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/") and "readme" not in name.lower():
                    found += archive.read(name).decode("latin-1").split("\n")
    return [" ".join(text.split()) for text in found if text.strip()]


def _key(text: str) -> str:
    """A text without its spaces, marks and capitals."""
    return re.sub(r"\W+", "", text.lower())


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}
