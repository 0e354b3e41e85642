"""What is wrong with cuts and with the order of steps: each at its line, all of them at once."""

import pytest

from understudy import build
from understudy.cli.main import run as command
from understudy.errors import RecipeError

HEAD = """\
data: {source: {kind: digits}}
teacher: %s
student: %s
"""
MODEL = "{model: {kind: resnet, depth: 8}, training: {epochs: 1}}"
CUT = "{from_teacher: {keep: 0.5}}"
STEPS = """\
steps:
  - kind: distil
    objective: [{kind: hint, layers: auto}]
"""


@pytest.fixture
def mistakes(tmp_path):
    """The mistakes of a recipe, as they are printed."""
    (tmp_path / "t.onnx").touch()

    def find(steps="", teacher=MODEL, student=CUT):
        try:
            build.checked(tmp_path / "r.yaml", text=HEAD % (teacher, student) + steps)
        except RecipeError as error:
            return [str(mistake) for mistake in error.mistakes]
        return []

    return find


@pytest.mark.parametrize(("teacher", "kind"), [
    ("{onnx: t.onnx}", "onnx"),
    ("{predictor: {kind: custom, target: 'math:sqrt'}}", "predictor"),
    ("{ensemble: [{onnx: t.onnx}, {onnx: t.onnx}]}", "ensemble"),
])  # fmt: skip
def test_only_a_model_can_be_cut(mistakes, teacher, kind):
    (told,) = mistakes(teacher=teacher)
    for part in ("line 3", "student.from_teacher", f"`{kind}`", "give `student.model` instead"):
        assert part in told, told


def test_layers_may_be_compared_before_anything_changes_them(mistakes):
    assert mistakes(STEPS) == []
    assert mistakes(STEPS + "  - {kind: cut, cuts: {kind: width, keep: 0.5}}\n  - {}\n") == []


CHANGES = {
    "cut": "{kind: cut, cuts: {kind: width, keep: 0.5}}",
    "channels": "{kind: prune, to: 0.5, structure: channels}",
    "aware": "{kind: quantize, aware: true}",
}
HINT = "objective: [{kind: hard_label}, {kind: hint, layers: auto}]"


def test_layers_are_not_compared_after_a_cut(mistakes):
    (told,) = mistakes(f"steps:\n  - {CHANGES['cut']}\n  - kind: distil\n    {HINT}\n")
    for part in ("line 7", "steps[1].objective[1]", "`hint` compares layers", "from_teacher"):
        assert part in told, told


def test_layers_are_not_compared_in_a_phase_after_a_cut(mistakes):
    phases = (
        "phases:\n      - objective: [{kind: hard_label}]\n"
        "      - {objective: [{kind: soft_target}, {kind: hint}]}\n"
    )
    (told,) = mistakes(f"steps:\n  - {CHANGES['cut']}\n  - kind: distil\n    {phases}")
    for part in ("line 9", "steps[1].phases[1].objective[1]", "`hint`"):
        assert part in told, told


@pytest.mark.parametrize("kind", ["channels", "aware"])
def test_layers_are_not_compared_in_a_step_that_changes_them_itself(mistakes, kind):
    step = CHANGES[kind].replace("}", ", " + HINT + "}", 1)
    told = mistakes(f"steps:\n  - kind: distil\n  - {step}\n")
    assert len(told) == 1, told
    assert "line 6" in told[0]
    assert "`hint`" in told[0]


def test_zeros_change_no_shape_so_layers_may_be_compared_while_they_come(mistakes):
    assert mistakes(f"steps:\n  - kind: prune\n    to: 0.5\n    {HINT}\n") == []


BROKEN = """\
data: {source: {kind: digitz}}
teacher: {onnx: t.onnx}
student: {from_teacher: [{keep: 0.5}, {kind: width}]}
steps:
  - {kind: cut, cuts: {kind: low_rank, enery: 0.9}}
  - {kind: prune, to: 0.5, begin: 0.9}
  - kind: distil
    objective: [{kind: hnt}]
"""


def test_check_tells_all_mistakes_at_once_with_lines_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "t.onnx").touch()
    (tmp_path / "r.yaml").write_text(BROKEN)
    assert command(["check", str(tmp_path / "r.yaml")]) == 2
    told = capsys.readouterr().err
    for part in (
        "line 1", "did you mean `digits`",
        "line 3", "`keep` and `parameters`",
        "line 5", "did you mean `energy`",
        "line 6", "`begin < end`",
        "line 8", "did you mean `hint`",
    ):  # fmt: skip
        assert part in told, told
    assert "Traceback" not in told


def test_mistakes_of_the_chain_are_told_beside_those_of_other_sections(tmp_path, capsys):
    (tmp_path / "t.onnx").touch()
    text = HEAD % ("{onnx: t.onnx}", CUT) + f"steps:\n  - {CHANGES['cut']}\n  - {{{HINT}}}\n"
    (tmp_path / "r.yaml").write_text(text.replace("digits", "digitz"))
    assert command(["check", str(tmp_path / "r.yaml")]) == 2
    told = capsys.readouterr().err
    for part in ("did you mean `digits`", "give `student.model` instead", "`hint` compares layers"):
        assert part in told, told
