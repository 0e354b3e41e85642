from xml.etree import ElementTree

import numpy as np
import pytest

from understudy.errors import DataError
from understudy.report.maps import MOST_CLASSES, feature_map, feature_map_keys, project
from understudy.report.record import RunRecord


def clusters(width: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    centres = 10 * rng.normal(size=(3, width))
    return centres[labels] + rng.normal(size=(60, width)), labels


def record(teacher, student, kind="pca") -> RunRecord:
    data = {"kind": kind, "teacher": teacher, "student": student}
    return RunRecord(data={"format": 1, "feature_map": data})


@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_rows_that_are_alike_lie_together_in_both_maps(kind):
    features, labels = clusters(12)
    turned = features @ np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    for plane in project(features, turned, kind=kind):
        assert plane.shape == (60, 2)
        centres = np.array([plane[labels == k].mean(0) for k in range(3)])
        spread = max(plane[labels == k].std(0).max() for k in range(3))
        apart = min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
        assert apart > 2 * spread


def test_the_students_picture_is_turned_onto_the_teachers():
    features, _ = clusters(2)
    goal, same = project(features, features[:, ::-1] * [-5, 3] + 7, kind="pca")
    np.testing.assert_allclose(same, goal, atol=1e-6)
    assert np.mean((goal**2).sum(1)) == pytest.approx(1)


def test_models_of_other_widths_and_one_number_per_row_can_be_drawn():
    wide, _ = clusters(12)
    goal, own = project(wide, wide[:, :1], kind="tsne")
    assert goal.shape == own.shape == (60, 2)
    assert np.isfinite(own).all()
    few, _ = project(wide[:4], np.zeros((4, 3)), kind="tsne")
    assert np.isfinite(few).all()


def test_the_map_is_a_function_of_the_seed():
    features, _ = clusters(12)
    one, again = (project(features, features, kind="tsne", seed=1)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_what_cannot_be_a_map_is_refused():
    features, _ = clusters(4)
    with pytest.raises(DataError, match="the same three rows or more"):
        project(features, features[:5], kind="pca")
    with pytest.raises(DataError, match="pool the features first"):
        project(features[:, :, None], features, kind="pca")
    features[3, 2] = np.nan
    with pytest.raises(DataError, match="must be finite"):
        project(features, features, kind="pca")


def test_a_class_has_one_colour_in_both_maps_and_a_name():
    teacher = [[0.0, 1.0, "cat"], [1.0, 0.0, "dog"], [2.0, 0.5, "cat"]]
    student = [[0.1, 0.9, "cat"], [0.8, 0.1, "dog"]]
    shown = record(teacher, student)
    drawings = [feature_map(shown, name) for name in ("teacher", "student")]
    keys = feature_map_keys(shown)
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        groups = [g for g in root.iter("g") if g.get("style")]
        assert len(groups) == 2
        for group in groups:
            colour = (group.get("style") or "").removeprefix("--c:")
            assert f"color:{colour}" in keys
    assert "cat" in keys
    assert drawings[0].count("h0") == 3
    assert "PCA of the features of the teacher" in drawings[0]
    assert "t-SNE" in feature_map(record(teacher, student, kind="tsne"), "student")


def test_of_many_classes_those_with_the_most_rows_have_colours():
    rows = [[float(i), 1.0, i % 20] for i in range(100)]
    shown = record([*rows, [1.0, 2.0, 19]], rows)
    drawing = feature_map(shown, "teacher")
    assert drawing.count("--c:") == MOST_CLASSES
    assert "other classes" in drawing
    assert drawing.count("h0") == 101
    assert "19" in feature_map_keys(shown)


def test_rows_without_classes_are_quiet_dots():
    drawing = feature_map(record([[0.0, 1.0], [1.0, 0.0, None]], []), "teacher")
    assert "--c:" not in drawing
    assert drawing.count("h0") == 2
    assert feature_map_keys(record([[0.0, 1.0]], [])) == ""


def test_thousands_of_rows_stay_small_and_names_are_safe():
    rows = [[float(i), -float(i), "<b>&"] for i in range(5000)]
    drawing = feature_map(record(rows, rows), "student")
    ElementTree.fromstring(drawing)
    assert drawing.count("h0") <= 600
    assert "<b>" not in drawing + feature_map_keys(record(rows, rows))


def test_what_is_missing_or_crooked_is_not_drawn():
    assert feature_map(RunRecord(data={"format": 1}), "teacher") == ""
    assert (
        feature_map(record([[1.0], "x", [None, 2.0, "a"], [float("nan"), 0.0]], 3), "teacher") == ""
    )
    assert feature_map(record([[0.0, 0.0, "a"]], []), "teacher")
