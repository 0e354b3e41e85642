"""Real files: what MNIST's relatives and Hugging Face's data sets really look like."""

import os
from pathlib import Path

import numpy as np
import pytest

from understudy.data import check_rows, csv, idx, parquet
from understudy.data.splits import split
from understudy.errors import DataError

pytestmark = pytest.mark.data


@pytest.fixture
def folder(request):
    root = os.environ.get("UNDERSTUDY_DATA")
    if not root:
        pytest.skip("UNDERSTUDY_DATA is not set")
    found = Path(root) / request.param
    if not found.is_dir():
        pytest.skip(f"UNDERSTUDY_DATA has no folder {request.param}")
    return found


@pytest.mark.parametrize("folder", ["fashion-mnist"], indirect=True)
def test_fashion_mnist(folder):
    rows = idx(
        inputs=str(folder / "train-images-idx3-ubyte.gz"),
        labels=str(folder / "train-labels-idx1-ubyte.gz"),
        test_inputs=str(folder / "t10k-images-idx3-ubyte.gz"),
        test_labels=str(folder / "t10k-labels-idx1-ubyte.gz"),
    )
    check_rows(rows)
    assert rows.inputs.shape == (70_000, 28, 28, 1)
    assert np.bincount(rows.labels).tolist() == [7000] * 10
    splits = split(rows, seed=0, test="given", validation=0.1, rows_limit=6000)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [5400, 600, 10_000]
    assert np.bincount(rows.labels[splits.validation]).tolist() == [60] * 10


@pytest.mark.parametrize("folder", ["cifar100"], indirect=True)
def test_the_test_file_of_cifar_100(folder):
    rows = parquet(
        path=str(folder / "test.parquet"),
        image="img",
        target="fine_label",
        classes=f"{folder / 'meta.json'}:fine",
    )
    check_rows(rows)
    assert rows.inputs.shape == (10_000, 32, 32, 3)
    assert rows.classes[:2] == ("apple", "aquarium_fish")
    assert np.bincount(rows.labels).tolist() == [100] * 100
    assert rows.inputs.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.509, 0.487, 0.442], abs=2e-3)
    splits = split(rows, seed=0, test=0.2, validation=0.1)
    assert splits.dropped <= 2  # two images are in the official file twice


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["cifar100"], indirect=True)
def test_the_whole_of_cifar_100(folder):
    rows = parquet(
        path=str(folder / "train.parquet"),
        test_path=str(folder / "test.parquet"),
        image="img",
        target="fine_label",
        classes=f"{folder / 'meta.json'}:fine",
    )
    check_rows(rows)
    assert len(rows) == 60_000
    splits = split(rows, seed=0, test="given", validation=0.1)
    assert len(splits.test) == 10_000
    assert splits.dropped == 10
    assert len(splits.train) + len(splits.validation) == 49_990


@pytest.mark.parametrize("folder", ["adult"], indirect=True)
def test_census_income_says_that_its_two_files_spell_the_classes_differently(folder):
    header = [*(f"column {number}" for number in range(14)), "income"]
    options = {"path": str(folder / "adult.data.gz"), "target": "income", "header": header}
    rows = csv(**options)
    check_rows(rows)
    assert rows.inputs.shape == (32_561, 14)
    assert rows.classes == ("<=50K", ">50K")
    assert sum(len(column.categories or ()) for column in rows.columns) == 102
    with pytest.raises(DataError, match=r"16281 rows hold others: `<=50K\.`, `>50K\.`"):
        csv(**options, test_path=str(folder / "adult.test.gz"))
