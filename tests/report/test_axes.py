from hypothesis import given
from hypothesis import strategies as st

from understudy.report import axes, svg
from understudy.report.svg import Scale

spots = st.tuples(st.floats(60, 400), st.floats(40, 230))


def overlap(one, other):
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def test_labels_of_two_marks_on_one_spot_do_not_overlap():
    placed = axes.place([((200, 100), "student"), ((202, 101), "control")], [], left=50, right=426)
    boxes = [
        axes._box(*spot, svg.text_width(word))
        for spot, word in zip(placed, ("student", "control"), strict=True)
    ]
    assert overlap(*boxes) == 0


@given(st.lists(spots, min_size=1, max_size=2))
def test_labels_stay_in_the_frame(points):
    placed = axes.place([(point, "student") for point in points], [], left=50, right=426)
    for spot in placed:
        box = axes._box(*spot, svg.text_width("student"))
        assert box[0] >= 50
        assert box[2] <= 426


def test_crowded_tick_labels_are_thinned_until_they_fit():
    scale = Scale(low=0, high=100, start=0, end=120)
    values = list(range(0, 101, 10))
    axis = axes.Axis(scale=scale, ticks=values, labels=[f"{v} units" for v in values], title="")
    kept = axes.thin(axis, room=4)
    assert 0 < len(kept.ticks) < len(values)
    widths = [svg.text_width(label) for label in kept.labels]
    for i in range(len(kept.ticks) - 1):
        apart = scale(kept.ticks[i + 1]) - scale(kept.ticks[i])
        assert apart >= (widths[i] + widths[i + 1]) / 2 + 4


def test_a_frame_titles_both_axes():
    scale = Scale(low=0, high=1, start=50, end=426)
    up = Scale(low=0, high=1, start=238, end=30)
    x = axes.Axis(scale=scale, ticks=[0, 1], labels=["0", "1"], title="size & speed")
    y = axes.Axis(scale=up, ticks=[0, 1], labels=["0%", "100%"], title="accuracy")
    drawn = axes.frame(x, y)
    assert "size &amp; speed" in drawn
    assert ">accuracy<" in drawn
    assert ">100%<" in drawn
