"""What the static encoder learns from, and what it is judged with besides pairs of sentences."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cifar_loops import folder

from understudy.data.sentences import read_sts

# Every fifth sentence of either class of the subjectivity set is judged, not learnt from.
HELD_OUT = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Labelled sentences: what is learnt on frozen vectors, and what is judged."""

    texts: tuple[str, ...]
    labels: np.ndarray
    test_texts: tuple[str, ...]
    test_labels: np.ndarray


def pairs(split: str) -> str:
    """The path of a split of the STS benchmark."""
    return str(folder() / "stsb" / f"sts-{split}.csv")


def sentences(others: int | None) -> list[str]:
    """STS-B's training sentences and some of SST-2, WikiText-2 and reviews, each once.

    None is among them that is judged anywhere, whatever its spaces and marks.
    """
    if not (folder() / "stsb").is_dir():
        raise SystemExit(f"this needs the real sentences: {folder()}/stsb is not there")
    judged = {_key(text) for split in ("dev", "test") for text in read_sts(pairs(split)).sentences}
    judged |= {_key(text) for part in ("dev", "test") for text, _ in _sst2(part)}
    judged |= {_key(text) for text in subjectivity().test_texts}
    every = [
        *_kept([text for text, _ in _sst2("train")]),
        *(line for name in ("test", "valid") for line in _wikitext(name)),
        *_kept([line for lines in _reviews().values() for line in lines]),
    ]
    order = np.random.default_rng(0).permutation(len(every))
    every = [every[i] for i in order if _key(every[i]) not in judged]
    own = [text for text in read_sts(pairs("train")).sentences if _key(text) not in judged]
    return list(dict.fromkeys([*own, *list(dict.fromkeys(every))[:others]]))


def sst2(rows: int) -> Probe:
    """Some training phrases of SST-2, and its dev sentences."""
    train, test = _sst2("train"), _sst2("dev")
    train = [train[i] for i in np.random.default_rng(1).permutation(len(train))[:rows]]
    return Probe(
        texts=tuple(text for text, _ in train),
        labels=np.array([label for _, label in train]),
        test_texts=tuple(text for text, _ in test),
        test_labels=np.array([label for _, label in test]),
    )


def subjectivity(rows: int | None = None) -> Probe:
    """Sentences that tell a plot, and sentences of reviews."""
    train, test = [], []
    found = {n: lines for n, lines in _reviews().items() if n.startswith(("plot.", "quote."))}
    for label, (_, lines) in enumerate(sorted(found.items())):
        kept = [line.strip() for line in lines if line.strip()]
        test += [(line, label) for line in kept[::HELD_OUT]]
        train += [(line, label) for place, line in enumerate(kept) if place % HELD_OUT]
    order = np.random.default_rng(1).permutation(len(train))[:rows]
    return Probe(
        texts=tuple(train[i][0] for i in order),
        labels=np.array([train[i][1] for i in order]),
        test_texts=tuple(line for line, _ in test),
        test_labels=np.array([label for _, label in test]),
    )


def _key(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())


def _sst2(part: str) -> list[tuple[str, int]]:
    path = folder() / "sst2" / f"glue_{part}.tsv"
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:])
    return [(cells[1].strip(), int(cells[0])) for cells in lines if len(cells) > 1]


def _wikitext(name: str) -> list[str]:
    path = folder() / "wikitext2" / f"{name}.txt"
    text = path.read_text(encoding="utf-8").replace("<unk>", "")
    lines = (line for line in text.split("\n") if not line.strip().startswith("="))
    return _kept([part for line in lines for part in re.split(r"(?<= [.?!]) ", line)])


def _reviews() -> dict[str, list[str]]:
    """The lines of every file of the two archives, by its name."""
    found = {}
    for path in sorted((folder() / "sentence-polarity").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/") and "readme" not in name.lower():
                    found[Path(name).name] = archive.read(name).decode("latin-1").split("\n")
    return found


def _kept(lines: list[str]) -> list[str]:
    return sorted({line.strip() for line in lines if 20 <= len(line.strip()) <= 250})
