"""The words of a verdict, and its sentence for somebody who reads nothing else."""

from dataclasses import dataclass
from enum import StrEnum

from understudy.evaluate.crossed import FEWEST_SEEDS, MOST_SEEDS


class Word(StrEnum):
    """The four verdicts."""

    HELPED = "HELPED"
    HURT = "HURT"
    NO_DIFFERENCE = "NO DIFFERENCE"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """A verdict in plain English."""

    name: str
    unit: str
    level: float
    seeds: int
    rows: int
    margin: float

    def decided(self, word: Word, effect: float, low: float, high: float) -> str:
        """For HELPED, HURT and NO DIFFERENCE."""
        evidence = f"{self._change(effect)} {self._interval(low, high)}"
        if word is Word.NO_DIFFERENCE:
            return (
                f"The teacher made no difference that matters: {evidence}, within the margin of "
                f"{self._amount(self.margin)}."
            )
        small = max(abs(low), abs(high)) <= self.margin
        tail = f" This is smaller than the margin of {self._amount(self.margin)}." if small else ""
        return f"The teacher {word.value.lower()}: {evidence}.{tail}"

    def undecided(
        self, effect: float, low: float, high: float, seeds: int | None, rows: int | None
    ) -> str:
        """For UNDECIDED, and how many seeds or rows would decide."""
        if seeds is not None:
            remedy = f"About {_count(seeds, 'seed')} on the same rows would decide"
        elif rows is not None:
            remedy = f"More seeds alone cannot decide, but about {_rounded_up(rows):,} rows would"
        else:
            remedy = (
                f"Neither {MOST_SEEDS:,} seeds nor more rows alone would decide: it takes both, or "
                "a wider margin"
            )
        return (
            f"Undecided: {self._change(effect)} {self._interval(low, high)}, which leaves more "
            f"than one answer open. {remedy}, if effect and noise stay as measured."
        )

    def too_few(self, effect: float) -> str:
        """For fewer seeds than a verdict needs."""
        return (
            f"Undecided: {self._change(effect)}, but {_count(self.seeds, 'seed')} cannot show how "
            f"much of that is luck. A verdict needs at least {FEWEST_SEEDS}."
        )

    def _change(self, effect: float) -> str:
        if effect == 0:
            return f"{self.name} is the same with and without the teacher"
        way = "better" if effect > 0 else "worse"
        return f"with the teacher, {self.name} is {self._amount(abs(effect))} {way} than without"

    def _interval(self, low: float, high: float) -> str:
        return (
            f"({100 * self.level:g}% interval {self._number(low)} to {self._number(high)}, "
            f"{_count(self.seeds, 'seed')}, {self.rows:,} rows)"
        )

    def _amount(self, size: float) -> str:
        if self.unit == "share":
            return f"{100 * size:.2f} points"
        return f"{size:.3g} {self.unit}".rstrip()

    def _number(self, value: float) -> str:
        return f"{100 * value:+.2f}" if self.unit == "share" else f"{value:+.3g}"


def _count(many: int, noun: str) -> str:
    return f"{many} {noun}" if many == 1 else f"{many:,} {noun}s"


def _rounded_up(many: int) -> int:
    """To two digits: an estimate has no more."""
    step = int(10 ** max(len(str(many)) - 2, 0))
    return -(-many // step) * step
