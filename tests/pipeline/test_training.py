"""One arm of one seed with terms on layers: phases, adapters, weights that are found, going on."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pipeline.lessons import HARD, STEPS, Lines, StoppedError, begun, learned, recipe_of
from understudy.errors import ModelError, RecipeError, StoreError
from understudy.export.onnx import export_onnx
from understudy.pipeline.deploy import export
from understudy.pipeline.distil import distil, trained_module
from understudy.pipeline.fresh import fresh_student

LAST = {"student": "stages.2", "teacher": "stages.2"}
HINT = {"kind": "hint", "weight": 1.0, "layers": LAST}
VID = {"kind": "vid", "layers": LAST}
SOFT = {"kind": "soft_target", "temperature": 2}
CONTRAST = {"kind": "contrast", "negatives": 16, "width": 8}
PHASES = [
    {"objective": [{"kind": "paraphraser", "layers": LAST}]},
    {"objective": [HARD, {"kind": "factor_transfer", "weight": 50, "layers": LAST}]},
]
LEARNING = {
    "crd": recipe_of(HARD, {"kind": "crd", "weight": 0.8, "layers": LAST, "adapter": CONTRAST}),
    "ctkd": recipe_of(HARD, {"kind": "ctkd", "adapter": {"kind": "temperature", "epochs": 2}}),
    "vid": recipe_of(HARD, VID),
    "mgd": recipe_of(HARD, {"kind": "mgd", "weight": 0.1, "layers": LAST}),
    "factor_transfer": recipe_of(phases=PHASES),
}


def files_of(folder):
    """Everything that was learned, by file."""
    root = folder / "run" / "distil" / "student-0"
    found = {p.relative_to(root).as_posix(): load_file(p) for p in root.rglob("*.safetensors")}
    assert "weights.safetensors" in found
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for name, tensors in one.items():
        assert tensors.keys() == other[name].keys()
        for key, value in tensors.items():
            assert torch.equal(value, other[name][key]), (name, key)


def stop(data, folder, *, phase=1):
    """Stop a student in the second epoch of a phase; that phase's folder."""
    with pytest.raises(StoppedError):
        learned(data, folder, Lines("student, seed 0", STEPS + 2, phase))
    where = folder / "run" / ".work" / "distil" / "student-0" / f"phase-{phase}"
    assert (where / "checkpoint.ckpt").is_file(), "nothing to go on from"
    assert not (where / "finished.json").exists()
    return where


# --- adapters: a group of their own, checkpointed, gone on with, left behind ---------------------


@pytest.mark.parametrize(("kind", "phase"), [
    ("crd", 1), ("ctkd", 1), ("vid", 1), ("mgd", 1), ("factor_transfer", 2),
])  # fmt: skip
def test_a_training_with_adapters_that_was_stopped_goes_on_bit_for_bit(kind, phase, place):
    data = LEARNING[kind]
    learned(data, place("whole"))
    folder = place("stopped")
    stop(data, folder, phase=phase)
    learned(data, folder)
    whole, stopped = files_of(folder.parent / "whole"), files_of(folder)
    assert f"phase-{phase}/adapters.safetensors" in whole or kind == "mgd"
    same(whole, stopped)


@pytest.mark.parametrize("kind", ["crd", "vid", "ctkd"])
def test_the_checkpoint_holds_adapters_and_their_own_group(kind, place):
    folder = stop(LEARNING[kind], place())
    saved = torch.load(folder / "checkpoint.ckpt", weights_only=True)
    inside = {name for name in saved["state_dict"] if name.startswith("objective.adapters.")}
    assert inside
    if kind == "crd":
        assert {"student_bank", "teacher_bank", "constants"} <= {n.split(".")[-1] for n in inside}
    student, adapters = saved["optimizer_states"][0]["param_groups"]
    assert not set(student["params"]) & set(adapters["params"])
    learning = {n for n in saved["state_dict"] if n.startswith("student.")}
    assert len(student["params"]) < len(learning)
    assert len(adapters["params"]) == {"crd": 4, "vid": 4, "ctkd": 1}[kind]


def test_what_adapters_learn_is_in_no_weights_of_the_student(place):
    folder = place()
    work, (arm,) = learned(LEARNING["vid"], folder)
    files = files_of(folder)
    fresh = trained_module(work, arm).state_dict()
    for name in ("weights.safetensors", "phase-1/weights.safetensors"):
        assert files[name].keys() == fresh.keys()
    assert files["phase-1/adapters.safetensors"].keys().isdisjoint(fresh)
    assert any("log_scales" in key for key in files["phase-1/adapters.safetensors"])


def test_adapters_do_learn(place):
    folder, other = place("long"), place("short")
    learned(LEARNING["vid"], folder)
    short = recipe_of(HARD, {"kind": "vid", "weight": 0.0, "layers": LAST})
    learned(short, other)
    one, two = (files_of(f)["phase-1/adapters.safetensors"] for f in (folder, other))
    key = next(k for k in one if "log_scales" in k)
    assert not torch.equal(one[key], two[key])


def test_the_exported_file_holds_no_adapter(place):
    """It is that of the student's network by itself, with the weights that it has learned."""
    onnx = pytest.importorskip("onnx")
    work, loaded = begun(recipe_of(HARD, VID, export={"int8": False}), place())
    arms, _ = distil(work, loaded)
    export(work, arms, loaded)
    plain = fresh_student(work, 0).module.eval()
    plain.load_state_dict(load_file(arms[0].folder / "weights.safetensors"))
    export_onnx(plain, work.material.inputs[:4], work.folder / "plain.onnx", metadata={})
    files = work.folder / "plain.onnx", work.folder / "export" / "student.onnx"
    one, other = (sorted(tuple(i.dims) for i in onnx.load(f).graph.initializer) for f in files)
    assert one == other != []


# --- phases --------------------------------------------------------------------------------------


def test_phases_carry_the_paraphraser_and_it_is_frozen_from_then_on(place):
    folder = place()
    learned(LEARNING["factor_transfer"], folder)
    files = files_of(folder)
    first, second = (files[f"phase-{n}/adapters.safetensors"] for n in (1, 2))
    for key, value in first.items():
        assert torch.equal(value, second[key.replace("paraphraser.", "factor_transfer.", 1)])
    assert bool(second["factor_transfer.pretrained"])


def test_a_phase_that_only_prepares_an_adapter_leaves_the_students_weights(place):
    folder = place()
    data = recipe_of(phases=PHASES)
    data["steps"][0] = {**data["steps"][0], "training": {**data["steps"][0]["training"],
                        "optimizer": {"kind": "sgd", "learning_rate": 0.1,
                                      "weight_decay": 0.0}}}  # fmt: skip
    work, _ = learned(data, folder)
    start = load_file(work.folder / "student" / "seed-0.safetensors")
    after = files_of(folder)["phase-1/weights.safetensors"]
    for key, value in start.items():
        if "running" not in key and "num_batches" not in key:
            assert torch.equal(value, after[key]), key


def test_factors_without_a_paraphraser_are_refused_before_training(place):
    with pytest.raises(RecipeError, match="add a phase with `kind: paraphraser`"):
        learned(recipe_of(PHASES[1]["objective"][1]), place())


# --- a look at every term ------------------------------------------------------------------------


def test_terms_are_told_for_the_first_seed_and_recorded_for_every_one(place):
    progress = Lines()
    _, arms = learned(recipe_of(HARD, HINT, SOFT, seeds=2, control=True), place(), progress)
    for name in ("hard_label", "hint", "soft_target"):
        told = [
            line for line in progress.said if line.startswith(f"{name}: ") and "gradient" in line
        ]
        assert len(told) == 1
        assert "weight 1" in told[0]
    for arm in arms:
        if arm.arm == "control":
            assert arm.summary["terms"] == [[]]
            continue
        (terms,) = arm.summary["terms"]
        assert [t["term"] for t in terms] == ["hard_label", "hint", "soft_target"]
        assert all(t["value"] > 0 and t["gradient"] > 0 for t in terms)


AUTO = recipe_of(HARD, {**HINT, "weight": "auto"})


def test_an_auto_weight_brings_the_gradient_to_that_of_the_others(place):
    _, (arm,) = learned(AUTO, place())
    hard, hint = arm.summary["terms"][0]
    assert (hard["found"], hint["found"]) == (False, True)
    assert hint["weight"] * hint["gradient"] == pytest.approx(hard["gradient"], rel=1e-6)
    assert hint["weight"] != 1


def test_a_resumed_run_uses_the_weight_that_was_found_and_ends_the_same(place):
    learned(AUTO, place("whole"))
    folder = place("stopped")
    where = stop(AUTO, folder)
    before = (where / "terms.json").read_text()
    _, (arm,) = learned(AUTO, folder)
    assert arm.summary["terms"] == [json.loads(before)]
    assert (arm.folder / "phase-1" / "terms.json").read_text() == before
    same(files_of(folder.parent / "whole"), files_of(folder))


def test_it_is_the_recorded_number_that_counts_and_not_one_found_again(place):
    learned(AUTO, place("whole"))
    folder = place("stopped")
    where = stop(AUTO, folder)
    terms = json.loads((where / "terms.json").read_text())
    terms[1]["weight"] *= 100
    (where / "terms.json").write_text(json.dumps(terms))
    _, (arm,) = learned(AUTO, folder)
    assert arm.summary["terms"] == [terms]
    with pytest.raises(AssertionError):
        same(files_of(folder.parent / "whole"), files_of(folder))


def test_a_term_that_moves_nothing_is_refused_before_training(place):
    """The student's stem reads nothing that learns: its input are the rows themselves."""
    term = {"kind": "similarity_preserving", "layers": {"student": "stem:input",
                                                        "teacher": "stages.2"}}  # fmt: skip
    with pytest.raises(ModelError, match=r"its gradient is exactly 0.*stem:input"):
        learned(recipe_of(HARD, term), place(), Lines("student, seed 0", 1))


def test_shapes_that_a_method_without_an_adapter_cannot_compare_are_told_with_both(
    place, monkeypatch
):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ModelError, match=r"\(2, 8, 2, 2\) and teacher \(2, 16, 2, 2\).*adapter"):
        learned(recipe_of({"kind": "simkd", "layers": LAST}), place())


def test_a_phase_that_trains_no_answer_is_not_judged_by_answers(place):
    judged = {
        "epochs": 3,
        "batch_size": 32,
        "choose": "validation",
        "early_stopping": {"patience": 1},
    }
    phases = [
        {"objective": [{"kind": "hint", "layers": LAST}], "training": judged},
        {"objective": [HARD], "training": {"epochs": 1, "batch_size": 32}},
    ]
    work, arms = learned(recipe_of(phases=phases), place())
    del work
    (done,) = [json.loads(p.read_text()) for p in arms[0].folder.glob("phase-1/finished.json")]
    assert done["epoch"] == 3
    assert [point["epoch"] for point in done["points"]] == [1, 2, 3]


# --- the control ---------------------------------------------------------------------------------


def control_of(work):
    return load_file(work.folder / "distil" / "control-0" / "weights.safetensors")


FREE = {"kind": "teacher_free", "weight": 0.5}


@pytest.mark.parametrize("terms", [[FREE], [HINT, SOFT]], ids=["free", "features"])
def test_a_control_is_the_same_whatever_the_student_learns_from(terms, place):
    plain, _ = learned(recipe_of(HARD, control=True), place("plain"))
    taught, _ = learned(recipe_of(HARD, *terms, control=True), place("taught"))
    one, two = control_of(plain), control_of(taught)
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    student = load_file(taught.folder / "distil" / "student-0" / "weights.safetensors")
    assert any(not torch.equal(value, student[key]) for key, value in one.items())


def test_a_control_does_not_train_where_the_student_does_not(place):
    _, arms = learned(recipe_of(phases=PHASES, control=True), place())
    phases = {arm.arm: sorted(p.name for p in arm.folder.glob("phase-*")) for arm in arms}
    assert phases == {"student": ["phase-1", "phase-2"], "control": ["phase-2"]}


def test_a_change_of_the_methods_leaves_a_finished_control_alone(place):
    folder = place()
    learned(recipe_of(HARD, HINT, control=True), folder)
    work, _ = learned(recipe_of(HARD, {**HINT, "weight": 2.0}, FREE, control=True), folder)
    assert "distil/student-0" in work.worked
    assert "distil/control-0" not in work.worked


# --- stored features -----------------------------------------------------------------------------


TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 5e-2}


def test_stored_features_teach_as_live_ones_do(place):
    sgd = {"kind": "sgd", "learning_rate": 0.05}
    data = recipe_of(HARD, HINT)
    data["steps"][0] |= {"training": {"epochs": 2, "batch_size": 32, "optimizer": sgd}}
    learned({**data, "labels": {"use": "live"}}, place("live"))
    live = files_of(place("other").parent / "live")["weights.safetensors"]
    gaps = {}
    for precision in TOLERANCE:
        work, _ = learned({**data, "labels": {"features": precision}}, place(precision))
        fields = json.loads((work.folder / "labels" / "manifest.json").read_text())["fields"]
        assert fields["stages.2"]["parameters"] == {"precision": precision}
        stored = files_of(work.folder.parent)["weights.safetensors"]
        gaps[precision] = max(
            float((value - stored[key]).norm() / (value.norm() + 1e-3))
            for key, value in live.items()
            if value.is_floating_point()
        )
    assert all(gaps[p] < TOLERANCE[p] for p in TOLERANCE), gaps
    assert 0 < gaps["float16"] < gaps["bfloat16"]


def test_float16_is_the_default_and_the_answer_keeps_all_its_digits(place):
    work, _ = learned(recipe_of(HARD, HINT, SOFT), place())
    fields = json.loads((work.folder / "labels" / "manifest.json").read_text())["fields"]
    assert fields["stages.2"]["parameters"] == {"precision": "float16"}
    assert fields["logits"]["parameters"] == {"precision": "float32"}


def test_a_shared_store_without_these_layers_is_refused(place):
    folder = place()
    shared = {"labels": {"store": "shared"}}
    learned({**recipe_of(HARD, SOFT), **shared}, folder)
    work, loaded = begun({**recipe_of(HARD, HINT), **shared}, folder, Lines("student, seed 0", 1))
    with pytest.raises(StoreError, match=r"but not stages.2: name another"):
        distil(work, loaded)
