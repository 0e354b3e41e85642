"""Skip connections of a traced network, drawn for people."""

from collections.abc import Sequence

from torch import fx

_MOST = 6
_GAP = "..."


def drawing(titles: Sequence[str], name: str, *, boundary: int) -> str:
    """A skip connection from the first to the last of some boxes, over a boundary, as text.

    Args:
        titles: what stands in the boxes; of many, the middle ones are left out.
        name: of the value that is carried.
        boundary: behind which box the boundary is, from 0.

    Example:
        >>> print(drawing(["a", "b", "c"], "relu", boundary=0))
          [a]─┊─[b]──[c]
           └──┊ relu ─┘
          from a to c, over the boundary a | b
    """
    top, centres = "  ", []
    shown = _shown(len(titles), boundary)
    for place, number in enumerate(shown):
        title = _GAP if number is None else titles[number]
        centres.append(len(top) + (len(title) + 1) // 2)
        top += f"[{title}]"
        if place < len(shown) - 1:
            top += "─┊─" if number == boundary else "──"
    start, end, wall = centres[0], centres[-1], top.index("┊")
    below = [" "] * start + ["└", *("─" * (end - start - 1)), "┘"]
    below[wall] = "┊"
    # On the wider side of the boundary.
    left = start + 1 if wall - start > end - wall else wall + 1
    room = (wall if left < wall else end) - left
    label = f" {name} "[: max(0, room - 1)]
    below[left : left + len(label)] = label
    over = f"{titles[boundary]} | {titles[boundary + 1]}"
    words = f"  from {titles[0]} to {titles[-1]}, over the boundary {over}"
    return f"{top}\n{''.join(below)}\n{words}"


def _shown(count: int, boundary: int) -> list[int | None]:
    """Which boxes are drawn: the ends and those at the boundary; None where some are left out."""
    if count <= _MOST:
        return list(range(count))
    kept = sorted({0, boundary, boundary + 1, count - 1})
    found: list[int | None] = []
    for number in kept:
        if found and found[-1] is not None and number > found[-1] + 1:
            found.append(None)
        found.append(number)
    return found


def longest(graph: fx.Graph) -> str:
    """A drawing of the longest skip connection of a graph; empty where it has none."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    spans = [
        (order[user] - order[node], _title(node), _title(user))
        for node in graph.nodes
        for user in node.users
        if node.op not in ("placeholder", "get_attr") and user.op != "output"
    ]
    if not spans or (widest := max(spans))[0] < 2:
        return ""
    _, start, end = widest
    return drawing([start, _GAP, end], start, boundary=0)


def _title(node: fx.Node) -> str:
    return node.name.removeprefix("network_")
