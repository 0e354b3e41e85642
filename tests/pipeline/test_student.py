"""Stage `student`: cut from the teacher, alone and in sequence; found out before training."""

import copy
import json

import pytest
import torch

from pipeline.chains import (
    DEPTH,
    LOW_RANK,
    SCRATCH,
    SHARING,
    STILL,
    TEACHER,
    WIDTH,
    answers,
    cut_from,
    distil,
    rows_of,
    teacher_of,
    weights_of,
)
from pipeline.lessons import HARD, Lines, begun, learned
from understudy import build
from understudy.errors import ModelError
from understudy.evaluate.cost import parameters
from understudy.pipeline.cutting import calibration
from understudy.pipeline.distil import layers, start
from understudy.pipeline.fresh import fresh_student

SEVERAL = (
    {"kind": "depth", "keep": 5, "by": "importance", "importance": {"rows": 60}},
    {"kind": "width", "keep": 0.75},
    {"kind": "low_rank", "energy": 0.9},
)
WITH_SHARING = (
    {"kind": "depth", "keep": [0, 1, 2, 4, 5]},
    {"kind": "sharing", "groups": 4, "by": "mean"},
    {"kind": "low_rank", "parameters": 0.9, "layers": ["stages.2.*"]},
)


def summary_of(work):
    return json.loads((work.folder / "student" / "stage.json").read_text())["summary"]


def by_hand(work, cuts):
    """The teacher's network after the written plans, by the functions of `students` alone."""
    network = teacher_of(work).network
    preprocess = teacher_of(work).preprocess
    seen = {"depth": 60, "width": 256, "low_rank": 256, "sharing": 256}
    for data, cut in zip(summary_of(work)["plans"]["0"], cuts, strict=True):
        rows = preprocess(calibration(work, seen[cut["kind"]])[0])
        plan = build.read_plan(data)
        network = build.apply_cut(plan, network, rows, seed=0, family=None).module
    return preprocess, network


@pytest.mark.parametrize("cuts", [
    (DEPTH,), (WIDTH,), (LOW_RANK,), (SHARING,), SEVERAL, WITH_SHARING,
    ({"kind": "depth", "keep": 0.7, "by": "taylor", "importance": {"rows": 40}},),
    ({"kind": "depth", "keep": [0, 2, 3, 4]},),
    ({"kind": "width", "parameters": 0.5, "by": "taylor", "even": False, "rows": 40},),
    ({"kind": "low_rank", "parameters": 0.7, "aware": False},),
], ids=lambda cuts: "-".join(cut["kind"] for cut in cuts))  # fmt: skip
def test_a_student_starts_with_what_the_cuts_leave_of_its_teacher(cuts, cutting):
    work, _ = begun(cut_from(*cuts), cutting())
    student = fresh_student(work, 0)
    preprocess, network = by_hand(work, cuts)
    rows = rows_of(work)
    with torch.no_grad():
        wanted = network.eval()(preprocess(rows))
    torch.testing.assert_close(answers(student.module, rows), wanted, rtol=1e-5, atol=1e-5)
    before = parameters(teacher_of(work))
    assert summary_of(work)["parameters"] == parameters(student.module) < before
    # The preprocessing is the teacher's, not that of the recipe's data.
    assert student.module.preprocess.describe() == teacher_of(work).preprocess.describe()
    assert all(path in dict(teacher_of(work).network.named_modules()) for path in
               student.provenance.values())  # fmt: skip
    if cuts[0]["kind"] == "depth":
        kept = [b for row in summary_of(work)["plans"]["0"][:1] for b in row["keep"]]
        assert list(student.provenance.values()) == kept
    if cuts is not SEVERAL:
        return
    plan = summary_of(work)["plan"]
    assert plan["parameters"] == [before, parameters(student.module)]
    assert {row["status"] for row in plan["rows"]} >= {"changed", "dropped"}
    found = summary_of(work)["importance"]
    assert found["by"] == "importance"
    assert len(found["kept"]) == 5


def test_a_fresh_student_of_the_family_inherits_nothing_but_its_preprocessing(cutting):
    work, _ = begun(cut_from(SCRATCH, seeds=2), cutting())
    one, other = (fresh_student(work, seed) for seed in (0, 1))
    before = parameters(teacher_of(work))
    assert 0.2 * before < parameters(one.module) <= 0.4 * before
    assert one.provenance == {}
    assert one.module.preprocess.describe() == teacher_of(work).preprocess.describe()
    rows = rows_of(work)
    assert not torch.equal(answers(one.module, rows), answers(other.module, rows))
    assert torch.equal(answers(one.module, rows), answers(fresh_student(work, 0).module, rows))


def test_random_cuts_differ_from_seed_to_seed_and_are_found_again(cutting):
    chance = {"kind": "depth", "keep": 4, "by": "random"}
    work, _ = begun(cut_from(chance, seeds=6), cutting())
    kept = [tuple(plan[0]["keep"]) for plan in summary_of(work)["plans"].values()]
    assert len(set(kept)) > 1
    for seed, paths in enumerate(kept):
        assert set(fresh_student(work, seed).provenance.values()) == set(paths)


def test_student_and_control_start_with_the_same_inherited_weights(cutting):
    steps = [distil(training=STILL, control=True)]
    work, arms = learned(cut_from(DEPTH, WIDTH, steps=steps), cutting())
    begin = dict(start(work, 0).named_parameters())
    assert [arm.arm for arm in arms] == ["student", "control"]
    for arm in arms:
        ended = weights_of(arm.folder / "weights.safetensors")
        for name, value in begin.items():
            assert torch.equal(ended[name], value), (arm.arm, name)


def test_dropout_and_stochastic_depth_leave_the_answers_of_a_cut_student(cutting):
    data = cut_from(DEPTH)
    work, _ = begun(data, cutting("plain"))
    data["student"] = {**data["student"], "dropout": 0.5, "stochastic_depth": 0.5}
    other, _ = begun(data, cutting("dropped"))
    rows = rows_of(work)
    module = fresh_student(other, 0).module
    assert torch.equal(answers(module, rows), answers(fresh_student(work, 0).module, rows))
    module.train()
    with torch.no_grad():
        assert not torch.equal(module(rows), module(rows))


# --- where blocks came from ----------------------------------------------------------------------


def test_terms_find_the_layers_that_a_students_blocks_came_from(cutting):
    hint = {"kind": "hint", "layers": {"auto": "provenance", "which": "all"}}
    positions = {"kind": "depth", "keep": [0, 2, 3, 4]}
    steps = [distil(objective=[HARD, hint])]
    work, loaded = begun(cut_from(positions, WIDTH, steps=steps), cutting())
    ((_, found),) = layers(work, loaded)
    assert dict(found.pairs) == {
        "stages.0.0": "stages.0.0", "stages.1.0": "stages.1.0",
        "stages.1.1": "stages.1.1", "stages.2.0": "stages.2.0",
    }  # fmt: skip


def test_blocks_that_move_up_keep_their_origin(cutting):
    """The second of two blocks becomes the first one of its stage."""
    data = cut_from({"kind": "depth", "keep": [0, 2, 4, 5]})
    data["teacher"] = {**TEACHER, "model": {"kind": "resnet", "depth": 20, "base": 4}}
    data["student"]["from_teacher"] = [
        {"kind": "depth", "keep": [0, 2, 3, 5, 6, 8]},
        {"kind": "depth", "keep": [0, 1, 2, 3, 4]},
    ]
    work, _ = begun(data, cutting())
    assert fresh_student(work, 0).provenance == {
        "stages.0.0": "stages.0.0", "stages.0.1": "stages.0.2", "stages.1.0": "stages.1.0",
        "stages.1.1": "stages.1.2", "stages.2.0": "stages.2.0",
    }  # fmt: skip


# --- found out before training -------------------------------------------------------------------


TOO_MUCH = [
    ({"kind": "depth", "keep": 1, "by": "evenly"}, "`keep >= 2` must hold"),
    ({"kind": "depth", "keep": 9}, "6"),
    ({"kind": "depth", "keep": [0, 7]}, "7"),
    ({"kind": "width", "parameters": 5}, r"5"),
    ({"kind": "width", "keep": 0.5, "protect": ["stage.0"]}, r"`stage.0`.*does not have"),
    ({"kind": "low_rank", "parameters": 5}, r"down to [\d,]+ .*target is 5"),
    ({"kind": "low_rank", "energy": 0.9, "layers": ["blocks.*"]}, r"`blocks.\*`"),
    ({"kind": "sharing", "groups": 2}, r"<= groups <"),
    ({"kind": "scratch", "parameters": 5}, "5"),
    ({"kind": "scratch", "parameters": 0.5, "vary": ["bass"]}, "did you mean `base`"),
]


@pytest.mark.parametrize(("cut", "law"), TOO_MUCH, ids=[str(c) for c, _ in TOO_MUCH])
def test_a_target_that_cannot_be_met_is_refused_before_the_teacher_is_trained(cut, law, tmp_path):
    with pytest.raises(ModelError, match=law) as error:
        begun(cut_from(cut), tmp_path)
    assert len(str(error.value)) > 40
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_teacher_that_is_still_to_be_trained_is_no_reason_to_refuse_an_energy(tmp_path):
    """Untrained weights have flat spectra; trained ones are looked at when they are there."""
    with pytest.raises(ModelError, match=r"keep 0\.999 of its energy"):
        begun(cut_from({"kind": "low_rank", "energy": 0.999}), tmp_path)
    assert (tmp_path / "run" / "teacher" / "stage.json").is_file()


def test_a_network_without_repeated_blocks_cannot_lose_any(tmp_path):
    data = cut_from({"kind": "depth", "keep": 0.5})
    data["teacher"] = {"model": {"kind": "mlp", "hidden": [16]}, "training": {"epochs": 1}}
    with pytest.raises(ModelError, match="block"):
        begun(data, tmp_path)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_changed_cut_makes_the_student_again_and_not_the_teacher(cutting):
    folder = cutting()
    begun(cut_from(DEPTH), folder)
    progress = Lines()
    work, _ = begun(cut_from({**DEPTH, "keep": 5}), folder, progress)
    assert work.worked == ["student"]
    assert any(line.startswith("student: done again, since") for line in progress.said)
    again, _ = begun(cut_from({**DEPTH, "keep": 5}), folder)
    assert again.worked == []


def test_another_teacher_is_cut_anew(cutting):
    folder = cutting()
    data = copy.deepcopy(cut_from(DEPTH))
    work, _ = begun(data, folder)
    before = summary_of(work)["start"]
    data["teacher"]["training"]["epochs"] = 2
    work, _ = begun(data, folder)
    assert work.worked == ["teacher", "student"]
    assert summary_of(work)["start"] != before


@pytest.mark.parametrize(("steps", "noted"), [
    ([distil()], True), ([distil(), {"kind": "cut", "cuts": WIDTH}], False),
])  # fmt: skip
def test_a_student_that_is_made_smaller_later_is_not_held_to_its_budget_yet(steps, noted, cutting):
    work, _ = begun(cut_from(DEPTH, steps=steps, budget={"parameters": 100}), cutting())
    assert any("the budget allows 100" in note for note in work.notes) == noted


def test_branches_that_cannot_be_dropped_are_found_before_the_teacher_is_trained(tmp_path):
    """The sum is no module's output here."""
    data = cut_from({"kind": "width", "keep": 0.5})
    data["teacher"] = {"model": {"kind": "mlp", "hidden": [16, 16, 16]}, "training": {"epochs": 1}}
    data["student"]["stochastic_depth"] = 0.5
    with pytest.raises(ModelError, match="branch"):
        begun(data, tmp_path)
    assert not (tmp_path / "run" / "teacher").exists()
