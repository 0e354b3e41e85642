"""A look at every term before training: what it says and refuses, and that it leaves no trace."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from understudy.contracts import Knowledge
from understudy.engine import BATCHES, Reading, probe
from understudy.errors import ModelError, TrainingError
from understudy.features.contrast import Contrast
from understudy.features.form import Adapted
from understudy.features.variance import Variance
from understudy.losses import (
    CRD,
    VID,
    HardLabel,
    Hint,
    LogitMSE,
    SimilarityPreserving,
    SoftTargetKL,
)
from understudy.objective import Objective, Pair, Term
from understudy.recipe import Schedule

PAIR = (Pair(student="0", teacher="inside"),)


class Student(nn.Sequential):
    """With everything that a look could change: statistics, dropout, a buffer in no state dict."""

    def __init__(self):
        super().__init__(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
        )
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, rows):
        self.seen += len(rows)
        return super().forward(rows)


class Detached(nn.Module):
    """A loss that teaches nothing."""

    def forward(self, own, goal):
        return LogitMSE()(own.detach(), goal)


class Inside:
    """A teacher that offers a layer too."""

    offers = frozenset({"logits", "inside"})

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, batch):
        logits = batch.inputs @ self.matrix
        return Knowledge(fields={"logits": logits, "inside": batch.inputs.repeat(1, 2)[:, :8]})


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Student()


def hard(**changes):
    return Term(**{"name": "hard_label", "loss": HardLabel(), "reads": "logits", "labels": True}
                | changes)  # fmt: skip


def soft(**changes):
    return Term(**{"name": "soft_target", "loss": SoftTargetKL(temperature=2.0), "reads": "logits",
                   "needs": ("logits",)} | changes)  # fmt: skip


def layered(name="hint", loss=None, **changes):
    options = {"reads": "features", "needs": ("features",), "pairs": PAIR}
    return Term(name=name, loss=loss or Hint(), **(options | changes))


@pytest.fixture
def look(problem, student):
    """Probe these terms; the readings by name."""

    def probed(*terms, loader=None, student=student, epochs=3):
        objective = Objective(terms, task=problem.task, offers=Inside.offers)
        readings = probe(
            student=student,
            objective=objective,
            teacher=Inside(problem.matrix),
            loader=problem.loader() if loader is None else loader,
            epochs=epochs,
        )
        return {r.term: r for r in readings}, objective

    return probed


def test_value_and_gradient_are_the_means_over_the_first_batches(problem, look):
    net = nn.Sequential(nn.Linear(6, 3))
    found, _ = look(soft(weight=0.5), student=net)
    batches = [batch for batch, _ in zip(problem.loader(), range(BATCHES), strict=False)]
    values, norms = [], []
    for batch in batches:
        net.zero_grad()
        target = ((batch.inputs @ problem.matrix) / 2).softmax(1)
        value = 4 * nn.functional.kl_div(
            (net(batch.inputs) / 2).log_softmax(1), target, reduction="batchmean"
        )
        value.backward()
        values.append(value.item())
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters())))
    reading = found["soft_target"]
    assert reading.value == pytest.approx(sum(values) / BATCHES, rel=1e-5)
    assert reading.gradient == pytest.approx(sum(norms) / BATCHES, rel=1e-5)
    assert (reading.weight, reading.found) == (0.5, False)


def test_only_the_first_batches_are_asked_for(problem, look):
    taken = []

    def batches():
        for batch in problem.loader():
            taken.append(len(batch))
            yield batch

    look(hard(), loader=batches())
    assert len(taken) == BATCHES


def test_a_line_says_value_gradient_weight_and_whether_it_was_found():
    alone = Reading(term="hint", value=0.5, gradient=2.0, weight=3.25, found=True)
    assert alone.line() == "hint: 0.5, gradient 2, weight 3.25 (found: its gradient brought to 1)"
    beside = replace(alone, like="soft")
    assert beside.line() == "hint: 0.5, gradient 2, weight 3.25 (found: as strong as soft)"
    given = replace(alone, found=False)
    assert given.line() == "hint: 0.5, gradient 2, weight 3.25"


# --- weights that are found ----------------------------------------------------------------------


def test_auto_is_the_weight_that_brings_its_gradient_to_the_heaviest_of_the_others(look):
    terms = [hard(weight=0.5), soft(weight=2.0), layered(weight="auto")]
    found, objective = look(*terms)
    heaviest = max(found[n].weight * found[n].gradient for n in ("hard_label", "soft_target"))
    assert found["hint"].weight * found["hint"].gradient == pytest.approx(heaviest, rel=1e-6)
    assert [n for n, r in found.items() if r.found] == ["hint"]
    assert objective.unbalanced == ()
    assert objective.weight("hint", epoch=2.0, epochs=3) == found["hint"].weight


def test_auto_alone_is_brought_to_one(look):
    found, _ = look(layered(weight="auto"), layered("hint#2", weight="auto"))
    for reading in found.values():
        assert reading.weight * reading.gradient == pytest.approx(1.0, rel=1e-6)


def test_auto_is_not_found_from_gradients_that_are_not_finite(look):
    class Wild(nn.Module):
        def forward(self, own, goal):
            return (own - own.detach()).square().sum(1).sqrt() + goal[:, 0] * 0 + 1.0

    with pytest.raises(TrainingError, match=r"`wild` is nan.*give every weight as a number"):
        look(hard(), soft(name="wild", loss=Wild(), weight="auto"))


# --- what is refused -----------------------------------------------------------------------------


def test_a_term_without_any_gradient_is_refused_with_its_layer(student, look):
    student[0].requires_grad_(False)
    with pytest.raises(ModelError) as error:
        look(hard(), layered())
    text = str(error.value)
    assert "`hint` is " in text
    assert "gradient is exactly 0" in text
    assert "(0)" in text
    assert "unfreeze" in text


def test_a_loss_that_detaches_is_refused(look):
    with pytest.raises(ModelError, match="gradient is exactly 0"):
        look(hard(), soft(name="detached", loss=Detached()))


def test_at_equality_there_is_nothing_to_refuse(problem, look):
    net = nn.Linear(6, 3, bias=False)
    net.weight = nn.Parameter(problem.matrix.T.clone())
    found, _ = look(soft(loss=LogitMSE()), student=net)
    assert found["soft_target"].value == pytest.approx(0, abs=1e-10)


def test_a_term_that_only_prepares_an_adapter_is_measured_on_that(look):
    class Prepares(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, student, teacher, batch):
            return Adapted(student=[self.layer(teacher[0])], teacher=teacher)

    found, _ = look(layered("prepares", adapter=Prepares(), teaches=False))
    assert found["prepares"].gradient > 0
    with pytest.raises(ModelError, match="gradient is exactly 0"):
        look(layered("prepares", adapter=Prepares()))


def test_a_relation_with_one_row_is_refused_before_batch_statistics_fail(problem, look):
    """The student's batch norm would say it in its own words."""
    term = layered("similarity_preserving", SimilarityPreserving(), related=True)
    with pytest.raises(ModelError, match="`batch_size >= 2`, but got batches of 1"):
        look(term, loader=[next(iter(problem.loader(0, 1)))])
    look(term)


def test_layers_of_two_shapes_without_an_adapter_are_told_with_both(look, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    pairs = (Pair(student="4", teacher="inside"),)
    with pytest.raises(ModelError, match=r"\(16, 3\) and teacher \(16, 8\).*4 and inside"):
        look(layered(pairs=pairs))


# --- nothing is changed --------------------------------------------------------------------------


def snapshot(*parts):
    named = [(*part.named_parameters(), *part.named_buffers()) for part in parts]
    return [{name: value.detach().clone() for name, value in part} for part in named]


def learning_terms():
    shapes = [(8,)], [(8,)]
    bank = Contrast(*shapes, ids=torch.arange(100), width=4, negatives=8)
    return [
        hard(),
        layered("vid", VID(), adapter=Variance(*shapes)),
        layered("crd", CRD(), adapter=bank, related=False),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_statistics_banks_weights_and_modes_are_left_as_they_were(student, look, training):
    student.train(training)
    student[1].eval()
    terms = learning_terms()
    adapters = [term.adapter for term in terms[1:]]
    before = snapshot(student, *adapters)
    modes = [m.training for m in student.modules()]
    look(*terms)
    for part, kept in zip((student, *adapters), before, strict=True):
        now = snapshot(part)[0]
        for name, value in kept.items():
            assert torch.equal(value, now[name]), name
    assert [m.training for m in student.modules()] == modes
    assert all(p.grad is None for part in (student, *adapters) for p in part.parameters())


def test_it_looks_in_training_mode(student, look):
    seen = []
    student[3].register_forward_hook(lambda m, i, o: seen.append(m.training))
    student.eval()
    look(hard())
    assert seen == [True] * BATCHES


def test_random_numbers_are_left_as_they_were(look):
    terms = learning_terms()
    before = torch.get_rng_state()
    look(*terms)
    assert torch.equal(torch.get_rng_state(), before)


def test_everything_is_put_back_where_a_term_is_refused(student, look):
    student.eval()
    before, state = snapshot(student)[0], torch.get_rng_state()
    with pytest.raises(ModelError):
        look(soft(loss=Detached()))
    assert all(torch.equal(v, snapshot(student)[0][k]) for k, v in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not student.training


def test_training_after_a_look_is_the_training_without_one(problem, same):
    students = []
    for looked in (False, True):
        torch.manual_seed(0)
        net, terms = Student(), learning_terms()
        objective = Objective(terms, task=problem.task, offers=Inside.offers)
        teacher = Inside(problem.matrix)
        if looked:
            probe(student=net, objective=objective, teacher=teacher, loader=problem.loader(),
                  epochs=2)  # fmt: skip
        problem.fit(student=net, objective=objective, teacher=teacher, settings={"epochs": 2})
        students.append((net, objective))
    assert same(students[0][0], students[1][0])
    assert same(students[0][1], students[1][1])


def test_the_same_weights_are_found_again_whatever_was_drawn_before(look):
    found = []
    for drawn in (0, 7):
        torch.rand(drawn)
        net = Student()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(0.1)
        readings, _ = look(hard(), soft(weight="auto"), student=net)
        found.append(readings["soft_target"].weight)
    assert found[0] == found[1]


def test_a_schedule_that_starts_at_zero_counts_with_the_mean_of_its_ends(look):
    readings, _ = look(hard(weight=Schedule(start=0.0, end=2.0)), soft(weight="auto"))
    own, found = readings["hard_label"], readings["soft_target"]
    assert own.weight == 0
    assert found.like == "hard_label"
    assert found.weight * found.gradient == pytest.approx(own.gradient)


def test_batches_without_a_labelled_row_do_not_count_for_the_labels(problem, look):
    batches = [batch for batch, _ in zip(problem.loader(), range(BATCHES), strict=False)]
    none = [replace(batch, labels=torch.full_like(batch.labels, -1)) for batch in batches[1:]]
    alone, _ = look(hard(), loader=batches[:1])
    mostly, _ = look(hard(), loader=[*none, batches[0]])
    assert mostly["hard_label"].value > 0
    assert mostly["hard_label"].gradient == pytest.approx(alone["hard_label"].gradient, rel=0.5)


class Recomputing(nn.Module):
    """A student that keeps no activations and computes them again on the way back."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, rows):
        wanted = rows.clone().requires_grad_()
        return self.head(torch.utils.checkpoint.checkpoint(self.body, wanted, use_reentrant=True))


def test_a_student_that_computes_its_activations_again_can_be_looked_at(look):
    net = Recomputing()
    readings, _ = look(hard(), soft(weight="auto"), student=net)
    assert readings["hard_label"].gradient > 0
    assert readings["soft_target"].weight > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_two_terms_of_one_name_are_refused(look):
    with pytest.raises(ModelError, match="a name of its own, but hard_label"):
        look(hard(), hard(weight=0.5))
