import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.report import svg
from understudy.report.svg import Scale

numbers = st.floats(-1e12, 1e12, allow_nan=False)
anything = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(st.lists(anything, max_size=8), st.booleans())
def test_every_scale_has_a_length_and_keeps_to_its_frame(values, log):
    scale = Scale.around(values, start=10, end=200, log=log)
    assert scale.low < scale.high
    for value in svg.finite(values):
        assert 10 <= scale(value) <= 200


@given(st.lists(numbers, min_size=2, max_size=8))
def test_a_scale_keeps_the_order_of_its_values(values):
    scale = Scale.around(values, start=0, end=100)
    spots = [scale(value) for value in sorted(values)]
    assert spots == sorted(spots)


@given(st.lists(numbers, min_size=1, max_size=8))
def test_a_scale_that_goes_up_is_the_mirror_of_one_that_goes_down(values):
    rising = Scale.around(values, start=0, end=100)
    falling = Scale.around(values, start=100, end=0)
    for value in values:
        assert rising(value) + falling(value) == pytest.approx(100)


@given(st.lists(anything, max_size=8), st.booleans(), st.integers(2, 8))
def test_ticks_are_in_order_inside_the_scale_and_few(values, log, count):
    scale = Scale.around(values, start=0, end=100, log=log)
    ticks = scale.ticks(count)
    room = 1e-6 * max(abs(scale.low), abs(scale.high))
    assert 0 < len(ticks) <= max(2, 1.5 * count)
    assert ticks == sorted(set(ticks))
    assert all(scale.low - room <= tick <= scale.high + room for tick in ticks)


def test_one_value_stands_in_the_middle():
    assert Scale.around([5.0], start=0, end=100)(5.0) == pytest.approx(50)
    assert Scale.around([5.0], start=0, end=100, log=True)(5.0) == pytest.approx(50)
    assert Scale.around([0.0, 0.0, None, math.nan], start=0, end=100)(0.0) == pytest.approx(50)


def test_on_a_logarithmic_scale_equal_ratios_are_equally_far_apart():
    scale = Scale.around([1, 1000], start=0, end=90, log=True)
    assert scale(10) - scale(1) == pytest.approx(scale(1000) - scale(100))
    assert Scale.around([0.0, -3.0, 10.0], start=0, end=90, log=True)(10) == pytest.approx(45)


def test_a_short_logarithmic_scale_still_has_round_ticks():
    scale = Scale.around([6.0, 8.5], start=0, end=90, log=True, pad=0.1)
    assert scale.ticks(4) == [6.0, 7.0, 8.0]


def test_limits_hold_back_the_air():
    scale = Scale.around([0.9, 1.0], start=0, end=100, pad=0.5, limits=(0, 1))
    assert scale.high == 1
    assert scale(1.0) == 100


def test_beyond_the_frame_a_scale_goes_on_only_if_asked():
    scale = Scale(low=0, high=1, start=0, end=100)
    assert scale(3) == 100
    assert scale(3, edge=5) == 300


points = st.lists(st.tuples(st.just(0.0), numbers), min_size=1, max_size=400)


@given(points, st.integers(4, 50))
def test_a_downsampled_line_keeps_its_ends_and_extremes(drawn, limit):
    line = [(float(i), y) for i, (_, y) in enumerate(drawn)]
    kept = svg.downsample(line, limit)
    assert len(kept) <= max(limit, 4)
    assert kept[0] == line[0]
    assert kept[-1] == line[-1]
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    for best in (min, max):
        assert best(y for _, y in kept) == best(y for _, y in line)


def test_a_short_line_is_left_as_it_is():
    line = [(0.0, 1.0), (1.0, 5.0), (2.0, 3.0)]
    assert svg.downsample(line, 120) == line
    assert svg.averaged(line, 120) == line


def test_an_averaged_line_keeps_its_ends_and_the_mean_between():
    line = [(float(i), float(i % 2)) for i in range(102)]
    kept = svg.averaged(line, 12)
    assert len(kept) == 12
    assert (kept[0], kept[-1]) == (line[0], line[-1])
    assert all(y == 0.5 for _, y in kept[1:-1])


def test_a_drawing_is_whole_and_says_what_it_is():
    figure = svg.svg(
        100, 50, "a <title> & more",
        svg.text(1, 2, "<b>"), svg.rect(0, 0, -3, 4, "bar"), svg.path([(1, 2)], "curve"),
        svg.path([], "curve"), svg.dots([(1, 2), (3, 4)], "dots"), svg.line((0, 0), (1, 1), "axis"),
        *(svg.marker(name, 5, 5, title="x & y") for name in ("teacher", "student", "control", "?")),
    )  # fmt: skip
    root = ElementTree.fromstring(figure)
    assert root.get("role") == "img"
    assert root[0].tag == "title"
    assert root[0].text == "a <title> & more"
    assert root.find("rect").get("width") == "0"


def test_every_model_has_a_shape_of_its_own():
    names = ("teacher", "student", "control", "student_int8")
    shapes = {svg.marker(name, 0, 0).split(">", 1)[1] for name in names}
    assert len(shapes) == 4


def test_a_column_of_names_has_bounds():
    assert svg.widest([], least=20, most=90) == 20
    assert svg.widest(["a" * 50], least=20, most=90) == 90
