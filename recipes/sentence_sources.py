"""Sentences for the recipes of this folder, from files that no source reads as they are.

`sentences` are texts to learn from, `subjectivity` labelled ones for a probe.
"""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from understudy.data import Rows, from_texts
from understudy.data.sentences import read_sts

SHORTEST, LONGEST = 20, 250


def sentences(folder: str, others: int | None = None) -> Rows:
    """STS-B's training sentences, and phrases of SST-2 and WikiText-2, each once.

    None is among them that the recipe judges by, whatever its spaces and marks.

    Args:
        folder: holds `stsb`, `sst2`, `wikitext2` and `sentence-polarity`.
        others: at most so many beside those of STS-B.
    """
    home = Path(folder)
    judged = {_key(text) for text in _sts(home, "dev", "test")}
    judged |= {_key(text) for part in ("dev", "test") for text in _sst2(home, part)}
    judged |= {_key(text) for text, _ in _subjectivity(home)}
    own = [text for text in _sts(home, "train") if _key(text) not in judged]
    more = [text for text in _others(home) if _key(text) not in judged]
    drawn = np.random.default_rng(0).permutation(len(more))[:others]
    return from_texts(list(dict.fromkeys([*own, *(more[at] for at in sorted(drawn))])), None)


def subjectivity(folder: str) -> Rows:
    """Sentences that tell a plot, and sentences that review it."""
    found = _subjectivity(Path(folder))
    return from_texts([text for text, _ in found], [kind for _, kind in found])


def _sts(home: Path, *parts: str) -> list[str]:
    files = (str(home / "stsb" / f"sts-{part}.csv") for part in parts)
    return [text for file in files for text in read_sts(file).sentences]


def _sst2(home: Path, part: str) -> list[str]:
    lines = (home / "sst2" / f"glue_{part}.tsv").read_text(encoding="utf-8").split("\n")[1:]
    return [line.split("\t")[1].strip() for line in lines if "\t" in line]


def _others(home: Path) -> list[str]:
    wiki = (home / "wikitext2" / "test.txt").read_text(encoding="utf-8").replace("<unk>", "")
    lines = (line for line in wiki.split("\n") if not line.strip().startswith("="))
    parts = (part for line in lines for part in re.split(r"(?<= [.?!]) ", line))
    return _kept([*_sst2(home, "train"), *parts])


def _kept(texts: Iterable[str]) -> list[str]:
    return sorted({text.strip() for text in texts if SHORTEST <= len(text.strip()) <= LONGEST})


def _subjectivity(home: Path) -> list[tuple[str, str]]:
    kinds = {"plot": "objective", "quote": "subjective"}
    found = []
    with zipfile.ZipFile(home / "sentence-polarity" / "subjectivity.zip") as archive:
        for name, kind in kinds.items():
            text = archive.read(f"subjectivity/{name}.tok.gt9.5000").decode("latin-1")
            found += [(line.strip(), kind) for line in text.split("\n") if line.strip()]
    return list(dict(found).items())


def _key(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())
