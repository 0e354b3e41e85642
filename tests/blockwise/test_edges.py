"""Skip connections as text."""

import pytest

from understudy.blockwise.edges import drawing


def test_the_edge_runs_below_its_boxes_and_over_the_boundary():
    assert drawing(["a", "b", "c"], "relu", boundary=0) == (
        "  [a]─┊─[b]──[c]\n   └──┊ relu ─┘\n  from a to c, over the boundary a | b"
    )


@pytest.mark.parametrize("count", [2, 5, 7, 40])
@pytest.mark.parametrize(
    "name", ["x", "a_name_that_is_longer_than_the_edge_can_hold_below_its_boxes"]
)
def test_long_chains_and_names_keep_the_ends_and_the_boundary(count, name):
    titles = [f"parts.{number}" for number in range(count)]
    for boundary in range(count - 1):
        top, below, words = drawing(titles, name, boundary=boundary).split("\n")
        assert len(top) < 110
        assert top.index("┊") == below.index("┊")
        assert below.count("└") == below.count("┘") == 1
        assert top.startswith("  [parts.0]")
        assert top.endswith(f"[parts.{count - 1}]")
        assert f"[parts.{boundary}]─┊─[parts.{boundary + 1}]" in top
        assert words.endswith(f"parts.{boundary} | parts.{boundary + 1}")
