"""What came of a choice between backends."""

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.contracts import Teacher
from understudy.teachers.backends.forms import BACKENDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What came of one backend.

    Attributes:
        rows_per_second: its pace; None where it was not timed.
        difference: the largest difference of its answers from eager's, in nats of log-probability
            or in standard deviations of the answers; None where it gave none.
        out: why it cannot be chosen; None where it can.
    """

    rows_per_second: float | None = None
    difference: float | None = None
    out: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A teacher in its backend.

    Attributes:
        teacher: answers batches of any size.
        name: the backend, a key of `BACKENDS`.
        piece: rows per call of the backend; None: every batch as a whole.
        rows_per_second: its pace with batches as large as the one it was chosen with.
        difference: from eager's answers, as in `Tried`.
        tried: what came of every backend, the chosen one too.
        size: rows in a piece as it was found to be best for all backends; None: whole batches.
    """

    teacher: Teacher
    name: str
    piece: int | None
    rows_per_second: float
    difference: float
    tried: Mapping[str, Tried]
    size: int | None = None

    def close(self, factor: float) -> tuple[str, ...]:
        """The backends that can be chosen and are at most so many times slower than the fastest."""
        pace = {n: t.rows_per_second for n, t in self.tried.items() if t.out is None}
        timed = {name: found for name, found in pace.items() if found is not None}
        best = max(timed.values(), default=0.0)
        return tuple(name for name, found in timed.items() if found * factor >= best)

    def line(self) -> str:
        """One line for the log: the backend, its pace, and the others that were timed."""
        others = []
        for name, tried in self.tried.items():
            if name != self.name and tried.rows_per_second is not None:
                out = f" but {tried.out}" if tried.out else ""
                others.append(f"{BACKENDS[name].title} {tried.rows_per_second:,.0f}{out}")
        title = BACKENDS[self.name].title + (f" in pieces of {self.piece}" if self.piece else "")
        rest = f" ({', '.join(others)})" if others else ""
        return f"teacher: {title}, {self.rows_per_second:,.0f} rows/s{rest}"
