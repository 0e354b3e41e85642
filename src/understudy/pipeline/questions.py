"""Stage `questions`: what vectors will be judged by, read before anything is trained.

Pairs of texts that people scored, and labelled texts for linear probes. Nothing is learned from
them, and a mistake in such a file is found in time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy import build
from understudy.data.checks import check_rows
from understudy.data.draws import Draws, strata_of
from understudy.data.scored_pairs import read_pairs
from understudy.data.sentences import SentencePairs
from understudy.data.splits import split
from understudy.errors import DataError
from understudy.folders import fingerprint
from understudy.pipeline.signatures import signatures
from understudy.pipeline.work import Work
from understudy.recipe import Entry, ProbeSection

STAGE = "questions"
# A stream of random numbers far from those that splits, views and other tasks draw from.
_STREAM = (1 << 20) + (1 << 11)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """Labelled texts: what a probe is fitted on, and what it is judged by.

    Attributes:
        name: as the recipe has it.
        classes: their names.
        texts: of the rows it is fitted on.
        labels: of the same.
        test_texts: of the rows it is judged by.
        test_labels: of the same.
    """

    name: str
    classes: tuple[str, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    test_texts: tuple[str, ...]
    test_labels: NDArray[np.int64]


def questions(work: Work) -> None:
    """Do the stage where the recipe asks anything.

    Raises:
        DataError: a file or a column is not there, or the rows are no labelled single texts.
    """
    section = work.recipe.evaluate
    if section.pairs is None and not section.probes:
        return
    sources = [probe.source for probe in section.probes]
    if section.pairs is not None:
        told = {"kind": "text", "path": section.pairs.path, "text": ""}
        sources.append(Entry.model_validate(told))
    depends = {
        "pairs": None if section.pairs is None else section.pairs.model_dump(mode="json"),
        "probes": [probe.model_dump(mode="json") for probe in section.probes],
        "files": [signatures(source, work.place) for source in sources],
        "data": work.data_mark,
    }
    summary = work.stage(STAGE, depends, lambda _: _look(work))
    work.notes.extend(summary["notes"])


def scored_pairs(work: Work) -> SentencePairs | None:
    """The pairs that people scored; None where the recipe names none."""
    section = work.recipe.evaluate.pairs
    if section is None:
        return None
    given = section.model_dump() | {"path": str(work.place.resolve(section.path))}
    try:
        return read_pairs(**given)
    except DataError as error:
        raise DataError(f"`evaluate.pairs`: {error}") from error


def probe_rows(work: Work, section: ProbeSection) -> Probe:
    """One probe's texts, split."""
    try:
        return _probe(work, section)
    except DataError as error:
        raise DataError(f"the probe `{section.name}`: {error}") from error


def _probe(work: Work, section: ProbeSection) -> Probe:
    rows = build.source(section.source, work.place)()
    check_rows(rows)
    if rows.texts is None or rows.classes is None or rows.labels is None or rows.labels.ndim != 1:
        raise DataError(
            "its rows must be single texts with a class each: name `text` and `target` of its "
            "source"
        )
    if len(rows.columns or ()) != 1:
        raise DataError("its rows must be single texts, but are pairs: remove `pair`")
    seed = work.recipe.data.seed
    # Half of what is left is called validation, only since `split` wants some.
    splits = split(rows, seed=seed, test=section.test, validation=0.5)
    pool = np.sort(np.concatenate([splits.train_labelled, splits.validation]))
    if section.rows is not None and section.rows < len(pool):
        draws = Draws(ids=rows.ids, seed=seed)
        pool = np.sort(draws.take(pool, strata_of(rows), section.rows, _STREAM, at_least=1))
    if len(np.unique(rows.labels[pool])) < 2:
        raise DataError("a probe needs rows of two classes to be fitted on: raise its `rows`")
    return Probe(
        name=section.name,
        classes=rows.classes,
        texts=tuple(rows.texts[at][0] for at in pool),
        labels=rows.labels[pool],
        test_texts=tuple(rows.texts[at][0] for at in splits.test),
        test_labels=rows.labels[splits.test],
    )


def _look(work: Work) -> dict[str, Any]:
    """Read everything once; what a person should know of it."""
    pairs = scored_pairs(work)
    found = [probe_rows(work, section) for section in work.recipe.evaluate.probes]
    rows = work.material.rows
    learned = {rows.texts[at][0] for at in work.material.splits.train} if rows.texts else set()
    notes = []
    judged = {"the scored pairs": pairs.sentences if pairs is not None else ()}
    judged |= {f"the probe `{probe.name}`": probe.test_texts for probe in found}
    for name, texts in judged.items():
        known = sum(text in learned for text in texts)
        if known:
            notes.append(
                f"{known} of {len(texts)} texts of {name} are training texts too: the student is "
                "judged on texts that it knows"
            )
    return {
        "pairs": None if pairs is None else len(pairs),
        "probes": {probe.name: [len(probe.texts), len(probe.test_texts)] for probe in found},
        "content": fingerprint([None if pairs is None else [*pairs.first, *pairs.second]]),
        "notes": notes,
    }
