"""The numbers of the page on blockwise distillation are those of its own code."""

import contextlib
import io
import re

import pytest
import torch

from manual import PAGES, blocks

PAGE = "blockwise.md"


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the whole page prints, block after block."""
    names, told, threads = {"__name__": "__main__"}, io.StringIO(), torch.get_num_threads()
    with contextlib.chdir(tmp_path_factory.mktemp("blockwise")), contextlib.redirect_stdout(told):
        for block in blocks(PAGE):
            if block.language == "python":
                exec(compile(block.code, f"{PAGE}, line {block.line}", "exec"), names)
    torch.set_num_threads(threads)
    return told.getvalue()


def rows_of(text):
    """Per network its parameters and its accuracy in percent."""
    found = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    return {name: (int(size.replace(",", "")), float(right)) for name, size, right in found}


def test_the_table_of_the_parts_is_the_printed_one(printed):
    (table,) = [block.code for block in blocks(PAGE) if block.language == "text"]
    assert table in printed


def test_the_measured_table_is_that_of_the_run(printed):
    page, run = rows_of(PAGES[PAGE]), rows_of(printed)
    assert list(run) == list(page)
    assert len(run) == 5
    for name, (size, right) in run.items():
        assert size == page[name][0]
        # Another processor adds in another order, and 497 test rows are few.
        assert abs(right - page[name][1]) <= 2.5, name


def test_what_the_page_says_of_the_run_is_so(printed):
    ten, stitched, tuned, short, long = (right for _, right in rows_of(printed).values())
    assert ten > 95
    assert short < stitched < tuned <= ten + 1
    assert long > tuned - 1


def test_the_arithmetic_is_right():
    text = PAGES[PAGE]
    sums = re.findall(r"\| ([\d×( )+]+) = ([\d,]+)(?= \|)", text)
    assert len(sums) == 6
    values = [int(value.replace(",", "")) for _, value in sums]
    for (left, _), value in zip(sums, values, strict=True):
        assert eval(left.replace("×", "*")) == value
    before, after = values[0::2], values[1::2]
    assert f"| all | 10 | {sum(before):,} | 3 | {sum(after):,} |" in text
