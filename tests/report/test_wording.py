import pytest

from understudy.report import wording


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.97444, "share", "97.44%"), (0.0, "share", "0.00%"), (-0.00001, "share", "0.00%"),
        (41.4, "", "41.4"), (0.09124, "", "0.09124"), (123456.0, "", "123456"),
        (1.5e9, "", "1.50e9"), (-2e-7, "", "−2.00e−7"), (None, "share", "–"),
    ],
)  # fmt: skip
def test_scores(value, unit, told):
    assert wording.score(value, unit) == told


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.0133, "share", "+1.33 points"), (-0.0133, "share", "−1.33 points"),
        (0.0, "share", "+0.00 points"), (5.5, "", "+5.5"), (-0.05, "nats", "−0.05 nats"),
    ],
)  # fmt: skip
def test_differences_carry_a_real_sign(value, unit, told):
    assert wording.difference(value, unit) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0 B"), (842, "842 B"), (999.7, "1 kB"), (61_300, "61.3 kB"), (64_000, "64 kB"),
        (1_351_000, "1.35 MB"), (999_999, "1 MB"), (4.2e13, "42 TB"), (None, "–"),
    ],
)  # fmt: skip
def test_sizes(value, told):
    assert wording.size(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.042, "42 µs"), (0.0005, "0.5 µs"), (1.874, "1.87 ms"), (2100, "2.1 s"), (None, "–")],
)
def test_times_of_milliseconds(value, told):
    assert wording.milliseconds(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.02, "< 0.1 s"), (0.42, "0.4 s"), (74.2, "74 s"), (210, "3.5 min"), (7560, "2.1 h")],
)
def test_times_of_seconds(value, told):
    assert wording.seconds(value) == told


@pytest.mark.parametrize(
    ("value", "told"), [(9876, "9,876"), (54_321, "54.3 k"), (1_200_000, "1.2 M"), (None, "–")]
)
def test_counts(value, told):
    assert wording.count(value) == told


@pytest.mark.parametrize(
    ("teacher", "other", "told"),
    [
        (1_351_000, 61_300, "22× smaller"), (10, 8, "1.2× smaller"), (10, 20, "2.0× larger"),
        (10, 10, "as the teacher"), (None, 3, ""), (3, None, ""), (0, 3, ""), (3, 0, ""),
        (103, 100, "1.03× smaller"), (5_000_000, 1, "5,000,000× smaller"),
    ],
)  # fmt: skip
def test_ratios_say_which_way(teacher, other, told):
    assert wording.ratio(teacher, other, "smaller", "larger") == told


def test_labels_of_one_axis_have_the_same_decimals():
    assert wording.ticks([0.0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert wording.ticks([0.9, 0.925, 0.95], "share") == ["90.0%", "92.5%", "95.0%"]
    assert wording.ticks([-2.0, 0.0, 2.0]) == ["−2", "0", "2"]
    assert wording.ticks([7.0]) == ["7"]
    assert wording.ticks([]) == []


def test_numbers_of_one_row_have_the_same_decimals():
    write = wording.aligned([0.1433, 0.0531, None])
    assert [write(0.1433), write(0.0531), write(None)] == ["0.1433", "0.0531", "–"]
    assert wording.aligned([41.4, 38.25])(41.4) == "41.40"
    assert wording.aligned([0.97], "share")(0.97) == "97.00%"


def test_names_are_cut_in_the_middle_and_words_at_the_end():
    assert wording.squeezed("feature_group_17", 9) == "feat…p_17"
    assert wording.squeezed("short", 9) == "short"
    assert wording.short("the whole sentence", 10) == "the whole…"
    assert len(wording.squeezed("x" * 1000, 15)) == 15


def test_what_is_cut_is_escaped():
    assert wording.cut('<b a="1">', 80) == "&lt;b a=&quot;1&quot;&gt;"
    assert wording.cut("<<<<<<", 3) == "&lt;&lt;…"
