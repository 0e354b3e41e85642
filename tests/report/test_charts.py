import re

import pytest

from understudy.report.charts import learning, mean_line, trade_off
from understudy.report.record import RunRecord


@pytest.mark.parametrize("cost", ["bytes", "parameters", "latency_ms"])
def test_every_model_stands_in_the_panel_with_its_name(record, cost):
    drawing = trade_off(record, cost)
    for name in ("teacher", "student", "control", "int8"):
        assert f">{name}</text>" in drawing


def test_the_budget_is_a_line_only_where_there_is_one(full):
    record = RunRecord(data=full)
    assert "budget 64 kB" in trade_off(record, "bytes")
    assert "budget 100 µs" in trade_off(record, "latency_ms")
    assert "budget" not in trade_off(record, "parameters")


def test_a_latency_budget_of_another_batch_size_is_not_drawn_on_this_axis(full):
    full["recipe"]["budget"]["latency_ms"]["batch"] = 32
    assert "budget" not in trade_off(RunRecord(data=full), "latency_ms")


def test_a_model_without_cost_or_score_is_left_out(full):
    full["models"]["teacher"]["bytes"] = None
    full["models"]["control"]["scores"] = {}
    drawing = trade_off(RunRecord(data=full), "bytes")
    assert "mark teacher" not in drawing
    assert "mark control" not in drawing
    assert "mark student" in drawing


def test_without_any_cost_there_is_no_panel(full):
    for model in full["models"].values():
        model["latency_ms"] = None
    assert trade_off(RunRecord(data=full), "latency_ms") == ""


def test_learning_draws_every_seed_and_one_mean_for_each_arm(record):
    drawing = learning(record, "validation", "accuracy")
    for arm in ("student", "control"):
        assert drawing.count(f'"curve thin {arm}"') == 5
        assert drawing.count(f'"curve mean {arm}"') == 1


def test_ten_seeds_of_two_hundred_epochs_stay_small(hundred):
    drawing = learning(RunRecord(data=hundred), "validation", "accuracy")
    assert drawing.count('"curve thin') == 20
    assert len(drawing) < 60_000


def test_values_that_were_not_taken_are_passed_over(full):
    for curve in full["curves"]:
        for point in curve["points"][1::2]:
            point["validation"] = None
    drawing = learning(RunRecord(data=full), "validation", "accuracy")
    assert "nan" not in drawing.lower()
    assert drawing.count('"curve thin') == 10


def test_one_point_is_drawn_and_none_is_no_panel(full):
    full["curves"] = [{"arm": "student", "seed": 0, "points": full["curves"][0]["points"][:1]}]
    assert 'class="mark student"' in learning(RunRecord(data=full), "validation", "accuracy")
    full["curves"][0]["points"][0]["validation"] = None
    assert learning(RunRecord(data=full), "validation", "accuracy") == ""


def test_the_first_epochs_do_not_flatten_the_others(full):
    for curve in full["curves"]:
        curve["points"][0]["training_loss"] = 500.0
    drawing = learning(RunRecord(data=full), "training_loss", "loss")
    labels = re.findall(r'class="tick" text-anchor="end">([\d.]+)<', drawing)
    assert max(float(label) for label in labels) < 5


def test_a_mean_is_taken_where_all_seeds_are():
    lines = [[(1.0, 2.0), (2.0, 4.0), (3.0, 9.0)], [(1.0, 4.0), (2.0, 8.0)]]
    assert mean_line(lines) == [(1.0, 3.0), (2.0, 6.0)]
    assert mean_line([]) == []
