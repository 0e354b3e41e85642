"""Which views go with which rows: a run says so before anything is trained."""

import numpy as np
import pytest

from understudy.errors import DataError

TABLE = {"kind": "csv", "path": "table.csv", "target": "y"}


@pytest.fixture
def on_table(small, run_small, tmp_path):
    """Begin a run on a table with these views; what it refuses."""

    def start(views, *, coded=False):
        draw = np.random.default_rng(0)
        lines = ["a,colour,y" if coded else "a,b,y"]
        for number in range(200):
            second = ["red", "blue"][number % 2] if coded else f"{draw.normal():.3f}"
            lines.append(f"{draw.normal():.3f},{second},{'yes' if draw.random() < 0.5 else 'no'}")
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
        data = small(seeds=1)
        source = TABLE | {"path": str(tmp_path / "table.csv")}
        data["data"] = {"source": source, "views": views}
        with pytest.raises(DataError) as found:
            run_small(data)
        return str(found.value)

    return start


def test_views_of_images_are_refused_on_a_table(on_table):
    views = [{"kind": "crop"}, {"kind": "erase"}, {"kind": "cutmix"}]
    assert on_table(views) == (
        "`data.views` (crop, erase, cutmix) are for images, but these rows are a table: remove them"
    )


def test_categories_have_no_mean(on_table):
    law = on_table([{"kind": "mixup"}], coded=True)
    assert law.startswith("`mixup` takes the mean of numbers, but these columns hold categories")
    assert "`colour`" in law


def test_mixup_and_transforms_of_ones_own_are_for_tables_too(on_table, tmp_path):
    (tmp_path / "own.py").write_text(
        "def wrong():\n    def transform(row):\n        return row[:1]\n    return transform\n"
    )
    views = [{"kind": "custom", "target": f"{tmp_path}/own.py:wrong"}, {"kind": "mixup"}]
    # The transform is reached, and refused for what it does.
    law = "made float32 [1] of float32 [2]: bring them back at its end"
    assert law in on_table(views)
