"""A map of features: the teacher's and the student's rows in one plane, coloured by class."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.errors import DataError
from understudy.report import svg
from understudy.report.axes import DISPLAY
from understudy.report.record import RunRecord, as_number
from understudy.report.svg import Scale
from understudy.report.wording import cut

Kind = Literal["pca", "tsne"]
Points = NDArray[np.float64]

MOST_CLASSES, _MOST_DOTS = 8, 600
_SIDE, _EDGE = 350.0, 12.0
_PERPLEXITY = 30.0


def project(
    teacher: NDArray[Any], student: NDArray[Any], *, kind: Kind, seed: int = 0
) -> tuple[Points, Points]:
    """Two coordinates per row for both models' features.

    The models' features have axes, widths and units of their own, so each is standardised and
    brought into two dimensions by itself. The student's picture is then turned, mirrored and
    scaled onto the teacher's (orthogonal Procrustes), as neither method knows left from right:
    rows that lie in the same place are alike to both models.

    Args:
        teacher: `[rows, width]`, three rows or more.
        student: `[rows, other width]`, the same rows in the same order.
        kind: `pca`, the two directions of most variance; `tsne`, who is near whom.
        seed: of t-SNE.

    Returns:
        `[rows, 2]` each; the teacher's have mean 0 and mean squared length 1.

    Raises:
        DataError: there are fewer than three rows, not the same rows, or numbers that are not
            finite.

    Paper:
        van der Maaten and Hinton 2008, "Visualizing Data using t-SNE"; Schonemann 1966, "A
        Generalized Solution of the Orthogonal Procrustes Problem".
    """
    if teacher.ndim != 2 or student.ndim != 2 or len(teacher) != len(student) or len(teacher) < 3:
        raise DataError(
            "a map needs `[rows, width]` of the same three rows or more from both models, but got "
            f"{list(teacher.shape)} and {list(student.shape)}: pool the features first"
        )
    goal, own = (_flat(values, kind=kind, seed=seed) for values in (teacher, student))
    left, strength, right = np.linalg.svd(own.T @ goal)
    share = strength.sum() / max(float((own**2).sum()), 1e-12)
    return goal, own @ (left @ right) * share


def feature_map(record: RunRecord, model: str) -> str:
    """One model's rows in the plane, `teacher` or `student`; both maps have one scale.

    Each class has its colour in both maps; of more than eight classes the eight with the most rows
    are drawn, the others as quiet dots.
    """
    rows = _rows(record, model)
    if not rows:
        return ""
    every = [row for name in ("teacher", "student") for row in _rows(record, name)]
    # One length means the same along both axes.
    reach = max(max(abs(x), abs(y)) for x, y, _ in every) or 1.0
    across = Scale(low=-reach, high=reach, start=_EDGE, end=_SIDE - _EDGE)
    up = Scale(low=-reach, high=reach, start=_SIDE - _EDGE, end=_EDGE)
    chosen = _classes(every)
    step = -(-len(rows) // _MOST_DOTS)
    parts = [svg.rect(0.5, 0.5, _SIDE - 1, _SIDE - 1, "track")]
    groups: dict[str | None, list[svg.Point]] = {}
    for x, y, told in rows[::step]:
        groups.setdefault(told if told in chosen else None, []).append((across(x), up(y)))
    names: list[str | None] = [None, *chosen]
    for name in names:
        if spots := groups.get(name):
            look = "" if name is None else f"--c:{_colour(chosen.index(name), len(chosen))}"
            parts.append(_cloud(spots, look, "other classes" if name is None else name))
    how = "t-SNE" if record.get("feature_map", "kind") == "tsne" else "PCA"
    title = f"{how} of the features of the {DISPLAY[model]}"
    return svg.svg(_SIDE, _SIDE, title, *parts, css="map")


def feature_map_keys(record: RunRecord) -> str:
    """The names of the classes in their colours, as HTML; empty where no row has a class."""
    every = [row for name in ("teacher", "student") for row in _rows(record, name)]
    chosen = _classes(every)
    return "".join(
        f'<span class="key" style="color:{_colour(i, len(chosen))}">● {cut(name, 24)}</span>'
        for i, name in enumerate(chosen)
    )


def _flat(values: NDArray[Any], *, kind: Kind, seed: int) -> Points:
    wide = np.asarray(values, dtype=np.float64)
    if not np.isfinite(wide).all():
        raise DataError(
            "features must be finite for a map, but hold NaN or infinity: leave out the rows that "
            "give them"
        )
    spread = wide.std(axis=0)
    wide = (wide - wide.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    left, strength, _ = np.linalg.svd(wide, full_matrices=False)
    found = (left * strength)[:, :2]
    if kind == "tsne" and wide.shape[1] > 2 and strength[0] > 0:
        found = _neighbours(wide, seed)
    found = np.pad(np.asarray(found, dtype=np.float64), ((0, 0), (0, 2 - found.shape[1])))
    found -= found.mean(axis=0)
    size = float(np.sqrt((found**2).sum(axis=1).mean()))
    plane: Points = found / size if size > 0 else found
    return plane


def _neighbours(wide: Points, seed: int) -> NDArray[Any]:
    from sklearn.manifold import TSNE

    # With more neighbours than a small cluster has rows, clusters are torn towards each other.
    perplexity = min(_PERPLEXITY, (len(wide) - 1) / 6)
    placed = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
    found: NDArray[Any] = placed.fit_transform(wide)
    return found


def _rows(record: RunRecord, model: str) -> list[tuple[float, float, str]]:
    """Rows with two numbers; their class as text, empty where they have none."""
    found = []
    for row in record.items("feature_map", model):
        if isinstance(row, list) and len(row) in (2, 3):
            x, y = as_number(row[0]), as_number(row[1])
            if x is not None and y is not None and len(svg.finite([x, y])) == 2:
                label = row[2] if len(row) == 3 else None
                found.append((x, y, "" if label is None else _word(label)))
    return found


def _word(label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label)


def _classes(rows: list[tuple[float, float, str]]) -> list[str]:
    """The classes with the most rows, in the order of their names."""
    counts: dict[str, int] = {}
    for _, _, name in rows:
        if name:
            counts[name] = counts.get(name, 0) + 1
    best = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_CLASSES]
    return sorted(best, key=lambda name: (len(name), name))


def _colour(index: int, count: int) -> str:
    """Hues at equal distances, dark and light enough for both papers."""
    lightness = 52 if index % 2 else 62
    return f"oklch({lightness}% 0.15 {round(360 * index / max(count, 1))})"


def _cloud(spots: list[svg.Point], look: str, told: str) -> str:
    drawn = svg.dots(spots, "dots")
    if not look:
        return svg.group("teacher quiet", drawn, title=told)
    return f'<g style="{look}">{svg.group("", drawn, title=told)}</g>'
