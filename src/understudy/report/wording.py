"""How things are written for people: few digits, one unit, a real minus sign, no endless names."""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

# beartype, like Python, does not take an int for a float.
Number = int | float

MISSING = "–"
TIMES = "×"


def score(value: Number | None, unit: str = "", *, decimals: int = 2) -> str:
    """A score: a share in per cent, anything else with four significant digits."""
    if value is None:
        return MISSING
    return f"{_fixed(100 * value, decimals)}%" if unit == "share" else significant(value)


def difference(value: Number | None, unit: str = "") -> str:
    """A signed difference of two scores; of two shares, in percentage points."""
    if value is None:
        return MISSING
    text = f"{_fixed(100 * value, 2)} points" if unit == "share" else f"{significant(value)} {unit}"
    text = text.rstrip()
    return text if text.startswith("−") else f"+{text}"


def interval(low: Number | None, high: Number | None, unit: str = "") -> str:
    """An interval in brackets, without the unit; empty where an end is missing."""
    if low is None or high is None:
        return ""
    if unit == "share":
        return f"[{_fixed(100 * low, 2)}, {_fixed(100 * high, 2)}]"
    return f"[{significant(low)}, {significant(high)}]"


def significant(value: Number, digits: int = 4) -> str:
    """A number with at most so many significant digits, without an exponent if it can be."""
    if value == 0:
        return "0"
    size = abs(value)
    if not 1e-4 <= size < 1e6:
        return f"{value:.{digits - 2}e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return _bare(_fixed(value, max(0, digits - 1 - math.floor(math.log10(size)))))


def aligned(values: Sequence[Number | None], unit: str = "") -> Callable[[Number | None], str]:
    """A writer that gives all of these values, and their like, the same number of decimals."""
    top = max((abs(value) for value in values if value is not None), default=0.0)
    if unit == "share" or not 1e-3 <= top < 1e6:
        return lambda value: score(value, unit)
    decimals = max(0, 3 - math.floor(math.log10(top)))
    return lambda value: MISSING if value is None else _fixed(value, decimals)


def count(value: Number | None) -> str:
    """A number of things: 9,876 · 54.3 k · 1.2 M."""
    if value is None:
        return MISSING
    return (
        f"{value:,.0f}" if abs(value) < 10_000 else _scaled(value, 1000, ("", "k", "M", "G", "T"))
    )


def size(value: Number | None) -> str:
    """Bytes in decimal units: 842 B · 61.3 kB · 4.1 MB."""
    return MISSING if value is None else _scaled(value, 1000, ("B", "kB", "MB", "GB", "TB"))


def milliseconds(value: Number | None) -> str:
    """A time of milliseconds with three significant digits: 42 µs · 1.87 ms · 2.1 s."""
    if value is None:
        return MISSING
    return _scaled(value * 1000, 1000, ("µs", "ms", "s"))


def seconds(value: Number | None) -> str:
    """A time of seconds, as one would say it: 0.4 s · 48 s · 3.5 min · 2.1 h."""
    if value is None:
        return MISSING
    if value < 10:
        return f"{value:.1f} s" if value >= 0.05 or value == 0 else "< 0.1 s"
    if value < 119.5:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def megabytes(value: Number | None) -> str:
    """Memory given in megabytes."""
    return MISSING if value is None else size(value * 1e6)


def ratio(teacher: Number | None, other: Number | None, less: str, more: str) -> str:
    """How many times less (or more) than the teacher: `22× smaller`; empty if it is unknown."""
    if not teacher or not other or teacher < 0 or other < 0:
        return ""
    times = teacher / other
    if abs(times - 1) < 0.005:
        return "as the teacher"
    return f"{_times(times)} {less}" if times > 1 else f"{_times(1 / times)} {more}"


def ticks(values: Sequence[Number], unit: str = "") -> list[str]:
    """Labels of an axis: as many decimals as its step needs, the same for all."""
    scaled = [100 * value for value in values] if unit == "share" else list(values)
    steps = [abs(b - a) for a, b in pairwise(scaled)]
    step = min((s for s in steps if s > 0), default=abs(scaled[0]) if scaled else 1.0)
    top = max((abs(value) for value in scaled), default=0.0)
    if step and (top >= 1e6 or step < 1e-5):
        return [significant(value, 3) for value in scaled]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    # Steps of 2.5 need one more than their size says.
    decimals += abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6
    return [_fixed(value, decimals) + ("%" if unit == "share" else "") for value in scaled]


def short(content: str, letters: int) -> str:
    """The words, cut with an ellipsis where they are longer than so many letters."""
    return content if len(content) <= letters else content[: max(letters - 1, 1)].rstrip() + "…"


def cut(value: Any, letters: int) -> str:
    """Anything as short words that are safe inside HTML."""
    return escape(short(str(value), letters))


def squeezed(name: str, letters: int) -> str:
    """A name cut in its middle, since names of a kind often differ at their end."""
    if len(name) <= letters:
        return name
    tail = (letters - 1) // 2
    return f"{name[: letters - 1 - tail].rstrip()}…{name[len(name) - tail :].lstrip()}"


def _times(value: Number) -> str:
    if value < 10:
        return f"{value:.1f}{TIMES}" if value >= 1.05 else f"{value:.2f}{TIMES}"
    return f"{value:,.0f}{TIMES}"


def _scaled(value: Number, base: Number, units: Sequence[str]) -> str:
    power = 0
    # 999.6 would be rounded to 1000, which is the next unit's 1.
    while abs(value) >= base - 0.5 and power < len(units) - 1:
        value, power = value / base, power + 1
    digits = 0 if abs(value) >= 99.95 or (power == 0 and value == int(value)) else 1
    if abs(value) < 9.95 and not (power == 0 and value == int(value)):
        digits = 2
    return f"{_bare(_fixed(value, digits))} {units[power]}".rstrip()


def _bare(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _fixed(value: Number, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")
