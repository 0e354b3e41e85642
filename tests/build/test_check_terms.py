"""Mistakes in terms: each at its line, and all of them at once."""

import pytest

from understudy import build
from understudy.errors import RecipeError

HEAD = """data: {source: {kind: digits}}
teacher: {model: {kind: resnet, depth: 8}, training: {epochs: 1}}
student: {model: {kind: resnet, depth: 8}}
steps:
  - training: {epochs: 1}
    objective:
"""
PHASES = HEAD.replace("    objective:\n", "    phases:\n")
ONNX = HEAD.replace("{model: {kind: resnet, depth: 8}, training: {epochs: 1}}", "{onnx: t.onnx}")
PREDICTOR = HEAD.replace(
    "{model: {kind: resnet, depth: 8}, training: {epochs: 1}}",
    "{predictor: {kind: custom, target: 'math:sqrt'}}",
)
ENSEMBLE = HEAD.replace(
    "{model: {kind: resnet, depth: 8}, training: {epochs: 1}}",
    "{ensemble: [{onnx: t.onnx}, {onnx: t.onnx}]}",
)


@pytest.fixture
def mistakes(tmp_path):
    """The mistakes of some terms, one per line, as they are printed."""
    (tmp_path / "t.onnx").touch()
    path = tmp_path / "r.yaml"

    def find(*terms, head=HEAD, settings=()):
        text = head + "".join(f"      - {term}\n" for term in terms)
        path.write_text(text)
        try:
            build.checked(path, settings)
        except RecipeError as error:
            return [str(mistake) for mistake in error.mistakes]
        return []

    return find


FIRST = 7  # the line of the first term


def test_every_method_is_accepted_as_it_is(mistakes):
    from understudy.losses import CATALOGUE

    kinds = [kind for kind, row in CATALOGUE.items() if "classification" in row.tasks]
    assert len(kinds) > 37
    every = ", ".join(f"{{kind: {kind}}}" for kind in kinds)
    phases = ["{objective: [{kind: paraphraser}]}", f"{{objective: [{every}]}}"]
    assert not mistakes(*phases, head=PHASES)


FACTORS, PARAPHRASER = "{kind: factor_transfer}", "{kind: paraphraser}"


@pytest.mark.parametrize("phases", [
    [FACTORS], [FACTORS, PARAPHRASER], [f"{PARAPHRASER}, {FACTORS}"],
])  # fmt: skip
def test_factors_need_a_paraphraser_in_a_phase_before(mistakes, phases):
    (found,) = mistakes(*(f"{{objective: [{terms}]}}" for terms in phases), head=PHASES)
    assert "`factor_transfer` stands on a `paraphraser`" in found
    assert found.startswith(f"line {FIRST}: steps[0].phases[0].objective[")


@pytest.mark.parametrize(("term", "told"), [
    ("{kind: hint, weight: -1}", "greater than or equal to 0"),
    ("{kind: hint, weight: .nan}", "finite"),
    ("{kind: hint, weight: .inf}", "finite"),
    ("{kind: hint, weight: automatic}", "weight"),
    ("{kind: hint, weight: {start: -1, end: 2}}", "greater than or equal to 0"),
    ("{kind: hint, weight: {start: .nan, end: 2}}", "finite"),
    ("{kind: soft_target, temperature: -4}", "`temperature > 0` must hold"),
    ("{kind: soft_target, temperature: 0}", "`temperature > 0` must hold"),
    ("{kind: soft_target, temperature: .nan}", "temperature"),
    ("{kind: soft_target, temperature: {start: 4, end: 0}}", "`temperature > 0` must hold"),
    ("{kind: soft_target, temperature: {start: .nan, end: 1}}", "finite"),
    ("{kind: dkd, temperature: -1}", "temperature"),
    ("{kind: nkd, temperature: .nan}", "temperature"),
    ("{kind: channel_wise, temperature: -1}", "temperature"),
    ("{kind: dist, temperature: .inf}", "temperature"),
    ("{kind: ctkd, temperature: 4}", "unknown parameter `temperature`"),
    ("{kind: hint, temperature: 4}", "unknown parameter `temperature`"),
    ("{kind: crd, adapter: {kind: contrast, temperature: -0.07}}", "`temperature >= 0.03`"),
    ("{kind: crd, adapter: {kind: contrast, temperature: .nan}}", "`temperature >= 0.03`"),
    ("{kind: crd, adapter: {kind: contrast, momentum: 1.5}}", "`0 <= momentum < 1`"),
    ("{kind: crd, adapter: {kind: contrast, negatives: 0}}", "`negatives >= 1`"),
    ("{kind: ctkd, adapter: {kind: temperature, start: -1}}", "`start > 0`"),
    ("{kind: ctkd, adapter: {kind: temperature, strength: 1}}", "`strength < 0`"),
    ("{kind: vid, adapter: {kind: variance, variance: .nan}}", "`0 < eps < variance`"),
    ("{kind: hint, adapter: {kind: match, projector: convolution}}", "projector"),
    ("{kind: hint, adapter: {kind: macth}}", "did you mean `match`"),
    ("{kind: hint, adapter: {kind: match, projecter: conv}}", "did you mean `projector`"),
    ("{kind: vid, adapter: {kind: match}}", "learns with `variance`, which gives it log_scale"),
    ("{kind: crd, adapter: {kind: embed}}", "learns with `contrast`"),
    ("{kind: hint, adapter: {kind: variance}}", "`variance` gives log_scale, which `hint` does"),
    ("{kind: hard_label, adapter: {kind: match}}", "compares the student with labels"),
    ("{kind: soft_target, layers: auto}", "compares answers, not layers: remove `layers`"),
    ("{kind: hint, layers: {student: a}}", "teacher"),
    ("{kind: hint, layers: []}", "at least 1"),
    ("{kind: hint, layers: automatic}", "auto"),
    ("{kind: hint, layers: {auto: sideways}}", "evenly"),
    ("{kind: hint, layers: {auto: end, which: first}}", "middle"),
    ("{kind: hnit}", "did you mean `hint`"),
    ("{kind: soft_value}", "not made for classification"),
    ("{kind: standardize, of: {kind: hint}}", "wraps a term on logits that learns nothing"),
    ("{kind: standardize, of: {kind: ctkd}}", "wraps a term on logits that learns nothing"),
    ("{kind: standardize, of: {kind: standardize}}", "wraps a term on logits"),
    ("{kind: standardize, of: {kind: soft_target, weight: 2}}", "a weight stands beside"),
    ("{kind: standardize, of: {kind: soft_target, temperature: -1}}", "`temperature > 0`"),
    ("{kind: standardize, of: 3}", "`of` must be a term"),
    ("{kind: standardize, temperature: 3}", "`standardize` has `of`"),
])  # fmt: skip
def test_a_mistake_is_told_with_its_line(mistakes, term, told):
    (found,) = mistakes("{kind: hard_label}", term)
    assert found.startswith(f"line {FIRST + 1}: steps[0].objective[1]"), found
    assert told in found


def test_all_mistakes_of_all_terms_are_told_at_once(mistakes):
    found = mistakes(
        "{kind: hint, weight: -1}",
        "{kind: soft_target, temperature: -4}",
        "{kind: hnit}",
        "{kind: vid, adapter: {kind: match}}",
        "{kind: crd, adapter: {kind: contrast, temperature: -1, momentums: 3}}",
    )
    assert [f.partition(":")[0] for f in found] == [f"line {FIRST + i}" for i in range(5)]


# --- teachers that only answer -------------------------------------------------------------------


@pytest.mark.parametrize(("head", "what"), [
    (ONNX, "an ONNX file"), (PREDICTOR, "a callable"), (ENSEMBLE, "an ensemble"),
])  # fmt: skip
def test_layers_of_a_teacher_that_only_answers_are_refused(mistakes, head, what):
    named = "{kind: hint, layers: {student: stages.1, teacher: stages.1}}"
    found = mistakes("{kind: hard_label}", "{kind: crd}", named, "{kind: ctkd}", head=head)
    assert len(found) == 2
    for number, kind in ((1, "crd"), (2, "hint")):
        line = found[number - 1]
        assert line.startswith(f"line {FIRST + number}: steps[0].objective[{number}]")
        assert f"`{kind}` compares layers inside the teacher, but {what} offers its answer" in line
        assert "give the teacher as a PyTorch `model`" in line


def test_terms_on_logits_are_content_with_such_a_teacher(mistakes):
    assert not mistakes("{kind: dkd}", "{kind: ctkd}", "{kind: hard_label}", head=ONNX)


# --- batches of one ------------------------------------------------------------------------------


RELATED = ["similarity_preserving", "rkd_distance", "rkd_angle", "pkt", "correlation_congruence",
           "cka", "dist", "multi_level"]  # fmt: skip


def test_relations_between_the_rows_of_one_are_refused(mistakes):
    terms = [f"{{kind: {kind}}}" for kind in RELATED]
    terms.append("{kind: standardize, of: {kind: dist}}")
    found = mistakes(*terms, settings=["steps[0].training.batch_size=1"])
    assert len(found) == len(terms)
    assert all("`batch_size >= 2` must hold, but got 1" in line for line in found)
    assert not mistakes(*terms, settings=["steps[0].training.batch_size=2"])


def test_what_compares_row_by_row_may_have_one(mistakes):
    terms = ["{kind: hint}", "{kind: soft_target}", "{kind: standardize}"]
    assert not mistakes(*terms, settings=["steps[0].training.batch_size=1"])


def test_the_batch_size_of_the_phase_counts(mistakes):
    one = "{objective: [{kind: pkt}], training: {epochs: 1, batch_size: 1}}"
    other = "{objective: [{kind: pkt}]}"
    (found,) = mistakes(one, other, head=PHASES)
    assert "phases[0].objective[0]" in found


# --- constraints on weights ----------------------------------------------------------------------


def test_constraints_stand_beside_terms_that_teach(mistakes):
    held = "{kind: l2_sp, weight: 0.01, beta: 1, new: ['head.*']}"
    assert not mistakes("{kind: hard_label}", held, "{kind: orthogonality, form: double}")
    (found,) = mistakes(held, "{kind: norm_ball}")
    assert "`l2_sp` only holds weights, so the student would learn nothing" in found


def test_a_term_must_weigh_something(mistakes):
    nothing = "{kind: hard_label, weight: 0}"
    assert not mistakes(nothing, "{kind: soft_target, weight: {start: 0, end: 1}}")
    assert not mistakes(nothing, "{kind: soft_target, weight: auto}")
    (found,) = mistakes(nothing, "{kind: soft_target, weight: {start: 0, end: 0}}")
    assert "the weight of `hard_label`, `soft_target` is 0, so the student would" in found


@pytest.mark.parametrize(("term", "law"), [
    ("{kind: l2_sp, weight: auto}", "`weight: auto` cannot be found: give a number"),
    ("{kind: norm_ball, radius: 0}", "`radius > 0` must hold"),
    ("{kind: norm_ball, layers: auto}", "`norm_ball` holds weights, not layers: remove `layers`"),
    ("{kind: l2_sp, adapter: {kind: match}}", "`l2_sp` holds weights, so nothing stands between"),
    ("{kind: orthogonality, form: hard}", "form"),
])  # fmt: skip
def test_what_a_constraint_cannot_have_is_refused(mistakes, term, law):
    (found,) = mistakes("{kind: hard_label}", term)
    assert law in found


def test_a_constraint_reads_no_labels_of_any_codec(mistakes):
    settings = ["labels.codec.kind=top_k", "labels.codec.k=2"]
    assert not mistakes("{kind: soft_target}", "{kind: l2_sp}", settings=settings)
