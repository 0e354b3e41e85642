"""Steps in a recipe: what may follow what, what each may have, and the chain that they become."""

import pytest

from understudy.recipe import CutStep, PruneStep, QuantizeStep, Training, loads, to_yaml

HEAD = "steps:\n"
DISTIL = "  - {kind: distil, training: {epochs: 4}}\n"
CUT = "  - {kind: cut, cuts: {kind: width, keep: 0.5}}\n"
PRUNE = "  - {kind: prune, to: 0.8, training: {epochs: 3}}\n"
ROUNDS = "  - {kind: prune, structure: channels, to: 0.5, rounds: 3, training: {epochs: 7}}\n"
QUANTIZE = "  - {kind: quantize}\n"
AWARE = "  - {kind: quantize, aware: true, training: {epochs: 2}}\n"


# --- forms and defaults --------------------------------------------------------------------------


def test_a_step_without_a_kind_distils(read):
    assert read("steps: [{training: {epochs: 2}}]").steps[0].kind == "distil"


def test_a_cut_step_has_one_cut_or_several(read):
    one = read(HEAD + DISTIL + CUT).steps[1]
    listed = read(HEAD + DISTIL + "  - {kind: cut, cuts: [{kind: width, keep: 0.5}]}\n").steps[1]
    assert isinstance(one, CutStep)
    assert one == listed


@pytest.mark.parametrize("to", ["0.8", "2:4", "'1:8'"])
def test_pruning_has_a_share_or_a_pattern(read, to):
    """YAML 1.1 would read 2:4 as a number of base 60."""
    step = read(f"{HEAD}  - {{kind: prune, to: {to}}}\n").steps[0]
    assert isinstance(step, PruneStep)
    assert str(step.to) == to.strip("'")
    assert (step.structure, step.schedule, step.begin, step.end) == ("weights", "cubic", 0, 0.75)


def test_quantize_has_safe_defaults(read):
    step = read(HEAD + DISTIL + QUANTIZE).steps[1]
    assert isinstance(step, QuantizeStep)
    assert (step.form, step.aware, step.calibration, step.reduce_range) == (
        "int8", False, "minmax", True,
    )  # fmt: skip


# --- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [
    DISTIL + QUANTIZE, CUT + DISTIL, DISTIL + CUT + PRUNE + AWARE, PRUNE, AWARE, ROUNDS + QUANTIZE,
    PRUNE + DISTIL + CUT,
])  # fmt: skip
def test_these_orders_are_fine(read, steps):
    assert len(read(HEAD + steps).steps) == steps.count("  - ")


@pytest.mark.parametrize(("steps", "law"), [
    (QUANTIZE + DISTIL, "`quantize` must be the last step, but `distil` follows"),
    (DISTIL + AWARE + CUT, "`quantize` must be the last step, but `cut` follows"),
    (DISTIL + QUANTIZE + QUANTIZE, "`quantize` must be the last step, but `quantize` follows"),
    (CUT, "needs a step that trains"),
    (QUANTIZE, "needs a step that trains"),
    (CUT + QUANTIZE, "needs a step that trains"),
])  # fmt: skip
def test_orders_that_make_no_sense_are_refused_where_steps_are(mistakes, steps, law):
    (told,) = mistakes(HEAD + steps)
    assert law in told
    assert "line 3" in told, told


def test_a_fresh_network_is_no_step(mistakes):
    (told,) = mistakes(HEAD + DISTIL + "  - {kind: cut, cuts: {kind: scratch, parameters: 0.5}}\n")
    for part in ("line 5", "steps[1]", "forgets what was learned", "student.from_teacher"):
        assert part in told, told


def test_updates_beside_frozen_weights_are_no_step(mistakes):
    (told,) = mistakes(HEAD + DISTIL + "  - {kind: cut, cuts: {kind: lora, rank: 2}}\n")
    for part in ("line 5", "steps[1]", "freezes what was learned", "student.from_teacher"):
        assert part in told, told


@pytest.mark.parametrize("steps", [
    DISTIL + CUT + QUANTIZE, PRUNE + AWARE, ROUNDS, DISTIL + "  - {kind: prune, to: 2:4}\n",
])  # fmt: skip
def test_a_chain_that_was_written_down_is_read_back_as_it_was(read, steps):
    """A run's folder holds its recipe with every default."""
    recipe = read(HEAD + steps)
    assert loads(to_yaml(recipe))[0] == recipe


# --- what does not belong together ---------------------------------------------------------------


@pytest.mark.parametrize(("step", "parts"), [
    ("{kind: prune}", ["`to` is required"]),
    ("{kind: prune, to: 1.5}", ["got 1.5"]),
    ("{kind: prune, to: half}", ["got 'half'"]),
    ("{kind: prune, to: '4:2'}", ["0 < N < M", "4:2"]),
    ("{kind: prune, to: '0:4'}", ["0 < N < M"]),
    ("{kind: prune, to: 0.0}", ["greater than 0"]),
    ("{kind: prune, to: 0.999}", ["0.99"]),
    ("{kind: prune, to: 2:4, structure: channels}", ["a pattern is for single weights"]),
    ("{kind: prune, to: 0.5, by: taylor}", ["single weights are chosen by magnitude"]),
    ("{kind: prune, to: 0.5, begin: 0.8, end: 0.5}", ["`begin < end`", "0.8 and 0.5"]),
    ("{kind: prune, to: 0.5, structure: channels, phases: [{objective: [{kind: hard_label}]}]}",
     ["divides one training into its `rounds`"]),
    ("{kind: prune, to: 0.5, shedule: linear}", ["did you mean `schedule`"]),
    ("{kind: prune, to: 0.5, round: 2}", ["did you mean `rounds`"]),
    ("{kind: quantize, aware: true, form: weight_int4}", ["`aware: true` rounds weights and"]),
    ("{kind: quantize, training: {epochs: 2}}", ["`training` is for `aware: true`"]),
    ("{kind: quantize, objective: [{kind: hard_label}]}", ["`objective` is for `aware: true`"]),
    ("{kind: quantize, control: false}", ["`control` is for `aware: true`"]),
    ("{kind: quantize, form: int5}", ["'weight_int4'", "got 'int5'"]),
    ("{kind: quantize, aware: true, calibraton: minmax}", ["did you mean `calibration`"]),
    ("{kind: cut}", ["`cuts` is required"]),
    ("{kind: cut, cuts: []}", ["at least 1 entry"]),
    ("{kind: cut, cuts: {kind: width, kep: 0.5}}", ["did you mean `keep`"]),
    ("{kind: cut, cut: {kind: width, keep: 0.5}}", ["unknown key `cut`", "did you mean `cuts`"]),
    ("{kind: distill}", ["distill", "'distil'", "'quantize'"]),
])  # fmt: skip
def test_a_mistake_in_a_step_is_told_with_its_place(mistakes, step, parts):
    told = "\n".join(mistakes(f"{HEAD}{DISTIL}  - {step}\n"))
    assert "line 5" in told, told
    for part in parts:
        assert part in told, told


def test_settings_that_only_single_weights_have_are_refused_for_channels(mistakes):
    """They would do nothing, and nobody would notice."""
    for word in ("schedule: linear", "begin: 0.1", "end: 0.5", "layers: [a]"):
        text = f"{HEAD}  - {{kind: prune, to: 0.5, structure: channels, {word}}}\n"
        (told,) = mistakes(text)
        assert f"`{word.split(':')[0]}`" in told
    for word in ("rounds: 2", "protect: [a]"):
        (told,) = mistakes(f"{HEAD}  - {{kind: prune, to: 0.5, {word}}}\n")
        assert f"`{word.split(':')[0]}`" in told


# --- the chain -----------------------------------------------------------------------------------


def test_a_chain_has_what_every_step_does_and_phases_with_their_training(read):
    recipe = read(HEAD + DISTIL + CUT + PRUNE + AWARE)
    assert [(link.step, link.kind) for link in recipe.chain] == [
        (0, "distil"), (1, "cut"), (2, "prune"), (3, "quantize"),
    ]  # fmt: skip
    assert [len(link.phases) for link in recipe.chain] == [1, 0, 1, 1]
    assert [phase.training.epochs for phase in recipe.phases] == [4, 3, 2]
    assert recipe.chain[1].cuts[0].keep == 0.5
    assert recipe.chain[2].sparsity is recipe.steps[2]
    assert recipe.chain[3].aware is recipe.steps[3]
    assert recipe.quantized is recipe.steps[3]


def test_channels_go_in_rounds_that_come_to_the_target_and_share_the_epochs(read):
    chain = read(HEAD + ROUNDS).chain
    assert len(chain) == 3
    left = 1.0
    for link in chain:
        assert link.sparsity is None
        left *= link.cuts[0].keep
    assert left == pytest.approx(0.5)
    epochs = [link.phases[0].training.epochs for link in chain]
    assert sum(epochs) == 7
    assert max(epochs) - min(epochs) <= 1
    assert [link.last for link in chain] == [False, False, True]


def test_there_are_no_more_rounds_than_epochs(read):
    few = ROUNDS.replace("epochs: 7", "epochs: 2")
    chain = read(HEAD + few).chain
    assert [link.phases[0].training.epochs for link in chain] == [1, 1]
    assert chain[0].cuts[0].keep == pytest.approx(0.5**0.5)


def test_phases_take_their_steps_training_unless_they_have_their_own(read):
    phases = "phases: [{objective: [{kind: hard_label}], training: {epochs: 9}}, " \
             "{objective: [{kind: hard_label}]}]"  # fmt: skip
    recipe = read(f"{HEAD}  - {{training: {{epochs: 2}}, {phases}}}\n{PRUNE}")
    assert [phase.training.epochs for phase in recipe.phases] == [9, 2, 3]


def test_without_a_quantize_step_the_export_says_how(read):
    assert read("export: {int8: false}").quantized is None
    other = read("export: {calibration: entropy, calibration_rows: 32}").quantized
    assert other is not None
    assert (other.form, other.calibration, other.calibration_rows) == ("int8", "entropy", 32)
    step = read(HEAD + DISTIL + "  - {kind: quantize, form: weight_int8}\nexport: {int8: false}")
    assert step.quantized is not None
    assert step.quantized.form == "weight_int8"


def test_a_run_has_a_control_where_every_step_that_trains_has_one(read):
    assert read(HEAD + DISTIL + CUT + AWARE).has_control
    without = PRUNE.replace("training:", "control: false, training:")
    assert not read(HEAD + DISTIL + without).has_control


def test_the_default_objective_is_that_of_the_task(read):
    recipe = read("task: {kind: regression}\n" + HEAD + PRUNE + AWARE)
    for phase in recipe.phases:
        assert [term.kind for term in phase.objective] == ["hard_value", "soft_value"]
        assert isinstance(phase.training, Training)
