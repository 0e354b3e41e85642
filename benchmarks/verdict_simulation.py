"""Does the verdict hold its level, and how often does it see what is there? Simulated accuracies.

    python benchmarks/verdict_simulation.py           # 2,000 comparisons per cell, minutes
    FULL=1 python benchmarks/verdict_simulation.py    # 10,000

A row is answered right where a latent number is above zero:

    base of the arm + luck of the seed + difficulty of the row + taste of the arm + noise

Difficulty is shared by both arms, as easy rows are easy for everybody. Taste is what an arm always
finds easier than the other does. Noise is fresh for every arm, seed and row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import mode, paste, record
from scipy.special import ndtri, stdtrit

from understudy.evaluate.crossed import mean_squares, spread

PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
ACCURACY = 0.90
DIFFICULTY = 2.0
TASTES = (0.0, 0.5, 1.0)
USUAL_TASTE = 0.5
SEEDS = (3, 5, 10)
ROWS = (360, 1_000, 10_000)
NOISES = (0.0, 0.5, 1.0)
EFFECTS = (0.0, 1.0, 2.0)
MARGIN = 0.01
LEVEL = 0.95
CELLS = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What is true in a cell.

    Attributes:
        seeds: pairs of student and control.
        rows: that each is scored on.
        noise: standard deviation of one arm's accuracy from seed to seed, in points.
        taste: standard deviation of what an arm always finds easier, on the latent scale, where
            the noise of one answer is 1.
    """

    seeds: int
    rows: int
    noise: float
    taste: float = USUAL_TASTE


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Shares of the comparisons: of claims by the plain formula and by ours, and of words."""

    plain: float
    helped: float
    hurt: float
    same: float

    @property
    def claims(self) -> float:
        """HELPED or HURT: where the truth is no effect, the level."""
        return self.helped + self.hurt


def differences(
    truth: Truth, effects: tuple[float, ...], *, comparisons: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Student less control of simulated right answers, in chunks `[effects, many, seeds, rows]`.

    The effects, in points of accuracy, share their random numbers.
    """
    usual = 1.0 + DIFFICULTY**2 + truth.taste**2
    # The spread of a seed's luck that moves the accuracy by `noise` points: slope of the normal.
    ratio = (truth.noise / 100 / _density(ACCURACY)) ** 2
    luck = np.sqrt(usual * ratio / (1.0 - ratio))
    total = np.sqrt(usual + luck**2)
    bases = [total * ndtri(ACCURACY + effect / 100) for effect in (0.0, *effects)]
    size = max(1, CELLS // (truth.seeds * truth.rows))
    for start in range(0, comparisons, size):
        many = min(size, comparisons - start)

        def normal(*shape: int, many: int = many) -> np.ndarray:
            return rng.standard_normal((many, *shape), dtype=np.float32)

        difficulty = DIFFICULTY * normal(1, truth.rows)
        student, control = (
            difficulty
            + truth.taste * normal(1, truth.rows)
            + luck * normal(truth.seeds, 1)
            + normal(truth.seeds, truth.rows)
            for _ in range(2)
        )
        right = (control > -bases[0]).astype(np.int8)
        yield np.stack([(student > -base).astype(np.int8) - right for base in bases[1:]])


def measure(
    truth: Truth, effects: tuple[float, ...], *, comparisons: int, seed: int
) -> list[Found]:
    """What the verdict says in a cell, one answer per true effect."""
    rng = np.random.default_rng([seed, truth.seeds, truth.rows, int(10 * truth.noise)])
    counts = np.zeros((4, len(effects)))
    for chunk in differences(truth, effects, comparisons=comparisons, rng=rng):
        for which, one in enumerate(chunk):
            counts[:, which] += _judged(one.astype(np.float64))
    return [
        Found(plain=a, helped=b, hurt=c, same=d) for a, b, c, d in (counts / comparisons).T.tolist()
    ]


def _judged(table: np.ndarray) -> tuple[int, int, int, int]:
    """How many of `[many, seeds, rows]` comparisons the plain formula and we claim, and so on."""
    seeds, rows = table.shape[-2:]
    effect = table.mean(axis=(-2, -1))
    squares = mean_squares(table)
    half = spread(squares, seeds=seeds, rows=rows, level=LEVEL).half_width
    helped, hurt = effect - half > 0, effect + half < 0
    same = ~helped & ~hurt & (np.abs(effect) + half <= MARGIN)
    a, b, c = squares.seeds, squares.rows, squares.residual
    total = np.maximum(a + b - c, np.maximum(a, b))
    parts = a**2 / (seeds - 1) + b**2 / (rows - 1) + c**2 / ((seeds - 1) * (rows - 1))
    satterthwaite = np.divide(total**2, parts, out=np.ones_like(total), where=parts > 0)
    plain = stdtrit(satterthwaite, (1 + LEVEL) / 2) * np.sqrt(total / (seeds * rows))
    return (
        int((np.abs(effect) > plain).sum()),
        int(helped.sum()),
        int(hurt.sum()),
        int(same.sum()),
    )


def _density(probability: float) -> float:
    """Of the standard normal, where it has this much below it."""
    return float(np.exp(-(ndtri(probability) ** 2) / 2) / np.sqrt(2 * np.pi))


def key(truth: Truth, effect: float) -> str:
    """A cell's name among the figures."""
    return (
        f"seeds={truth.seeds},rows={truth.rows},noise={truth.noise:g},taste={truth.taste:g},"
        f"effect={effect:g}"
    )


def cells() -> list[Truth]:
    """Every combination of seeds, rows and seed noise, at the usual taste."""
    return [
        Truth(seeds=seeds, rows=rows, noise=noise)
        for seeds in SEEDS
        for rows in ROWS
        for noise in NOISES
    ]


def simulate(*, comparisons: int, seed: int) -> dict[str, float]:
    """Every cell: level at every taste, power at the usual one."""
    figures: dict[str, float] = {"comparisons": comparisons}
    worst = {"worst_level": 0.0, "worst_plain_level": 0.0, "worst_false_same": 0.0}
    for truth in (replace(cell, taste=taste) for cell in cells() for taste in TASTES):
        effects = EFFECTS if truth.taste == USUAL_TASTE else EFFECTS[:1]
        answers = measure(truth, effects, comparisons=comparisons, seed=seed)
        none, *some = answers
        worst["worst_level"] = max(worst["worst_level"], none.claims)
        worst["worst_plain_level"] = max(worst["worst_plain_level"], none.plain)
        worst["worst_false_same"] = max([worst["worst_false_same"], *(one.same for one in some)])
        for effect, found in zip(effects, answers, strict=True):
            name = key(truth, effect)
            figures[f"{name}:claims"] = found.claims
            figures[f"{name}:plain_claims"] = found.plain
            figures[f"{name}:helped"] = found.helped
            figures[f"{name}:same"] = found.same
    return figures | worst


def table(figures: dict[str, float]) -> str:
    """The figures at the usual taste as a Markdown table, in percent of the comparisons."""
    heads = (
        "seeds",
        "rows",
        "seed noise",
        "false claims",
        "the same, Satterthwaite",
        "no effect: NO DIFFERENCE",
        "+1 point: HELPED",
        "+2 points: HELPED",
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    for cell in cells():
        names = [key(cell, effect) for effect in EFFECTS]
        shares = (
            figures[f"{names[0]}:claims"],
            figures[f"{names[0]}:plain_claims"],
            figures[f"{names[0]}:same"],
            figures[f"{names[1]}:helped"],
            figures[f"{names[2]}:helped"],
        )
        told = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {cell.seeds} | {cell.rows:,} | {cell.noise:g} | {told} |")
    many = len(cells()) * len(TASTES)
    lines += [
        "",
        f"{int(figures['comparisons']):,} simulated comparisons per cell. Most false claims of "
        f"help or harm in any of {many} cells without an effect (these, and as many with less and "
        f"with more taste): {100 * figures['worst_level']:.1f} %; with Satterthwaite's degrees of "
        f"freedom {100 * figures['worst_plain_level']:.1f} %. Most false NO DIFFERENCE where the "
        f"true effect is the margin or twice it: {100 * figures['worst_false_same']:.1f} %. True "
        "effects that Satterthwaite's would find and ours does not, at most: "
        f"{_given_up(figures)}.",
    ]
    return "\n".join(lines)


def _given_up(figures: dict[str, float]) -> str:
    """The most power that our quantile costs in any cell of the table, for each number of seeds."""
    told = []
    for seeds in SEEDS:
        names = [key(cell, e) for cell in cells() if cell.seeds == seeds for e in EFFECTS[1:]]
        most = max(figures[f"{name}:plain_claims"] - figures[f"{name}:claims"] for name in names)
        told.append(f"{100 * most:.1f} % of the comparisons with {seeds} seeds")
    return ", ".join(told)


def main() -> None:
    """Simulate, print the table, write the figures and put the table into the manual."""
    how = mode()
    comparisons = {"reduced": 2_000, "full": 10_000}[how]
    figures = simulate(comparisons=comparisons, seed=0)
    print(table(figures))
    print(record("verdict_simulation", figures, seeds=[0], mode=how))
    paste(table(figures), name="verdict_simulation", page=PAGE)


if __name__ == "__main__":
    main()
