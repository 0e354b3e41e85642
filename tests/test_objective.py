"""The objective: terms, weights, masks, and the one mean."""

import math

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.contracts import Batch, Knowledge, Outcomes, Ragged
from understudy.errors import ModelError, TrainingError
from understudy.losses import (
    L2SP,
    HardLabel,
    HardValue,
    LogitMSE,
    NormBall,
    SoftTargetKL,
    SoftValue,
)
from understudy.objective import Objective, Term, control_objective, scheduled, trained
from understudy.objective.checks import check_together
from understudy.recipe import Schedule
from understudy.tasks import Classification, Regression

CLASSES = Classification(classes=("a", "b", "c"))
VALUES = Regression(targets=("x", "y"), mean=(10.0, -1.0), std=(2.0, 0.5))
LOGITS = frozenset({"logits"})


def hard(weight=1.0, **changes):
    loss = changes.pop("loss", None) or HardLabel()
    options = {"name": "hard_label", "reads": "logits", "labels": True}
    return Term(loss=loss, weight=weight, **(options | changes))


def soft(weight=1.0, *, temperature=2.0, **changes):
    options = {"name": "soft_target", "reads": "logits", "needs": ("logits",)}
    loss = SoftTargetKL(temperature=temperature)
    return Term(loss=loss, weight=weight, **(options | changes))


def scheduled_soft(temperature):
    loss = SoftTargetKL(temperature=9.0)
    return Term(
        name="soft_target", loss=loss, reads="logits", needs=("logits",), temperature=temperature
    )


def mse(weight=1.0, **changes):
    options = {"name": "logit_mse", "reads": "logits", "needs": ("logits",)}
    return Term(loss=LogitMSE(), weight=weight, **(options | changes))


def objective(*terms, task=CLASSES, offers=LOGITS):
    return Objective(terms, task=task, offers=offers)


@pytest.fixture
def student():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, generator=generator).requires_grad_()


@pytest.fixture
def teacher():
    generator = torch.Generator().manual_seed(2)
    return Knowledge(fields={"logits": torch.randn(6, 3, generator=generator)})


@pytest.fixture
def batch():
    return Batch(inputs=torch.zeros(6, 1), labels=torch.tensor([0, 1, 2, 0, 1, 2]))


def unlabelled(batch, *rows):
    labels = batch.labels.clone()
    labels[list(rows)] = -1
    return Batch(inputs=batch.inputs, labels=labels)


def at(made, student, teacher, batch, *, epoch=0.0, epochs=10):
    return made(student, teacher, batch, epoch=float(epoch), epochs=epochs)


# --- the one mean --------------------------------------------------------------------------------


def test_it_is_the_weighted_sum_of_means(student, teacher, batch):
    total = at(objective(hard(0.25), soft(0.75)), student, teacher, batch)
    own, other = student.detach().double(), teacher["logits"].double()
    ce = nn.functional.cross_entropy(own, batch.labels)
    kl = nn.functional.kl_div(
        (own / 2).log_softmax(1), (other / 2).log_softmax(1), reduction="batchmean", log_target=True
    )
    expected = 0.25 * ce + 0.75 * 4 * kl
    assert float(total.loss.detach()) == pytest.approx(float(expected), rel=1e-6)
    assert float(total.parts["hard_label"]) == pytest.approx(float(ce), rel=1e-6)
    assert float(total.parts["soft_target"]) == pytest.approx(float(4 * kl), rel=1e-6)
    assert not any(part.requires_grad for part in total.parts.values())


def test_the_hard_term_is_the_mean_over_labelled_rows_and_the_soft_one_over_all(
    student, teacher, batch
):
    total = at(objective(hard(), soft()), student, teacher, unlabelled(batch, 1, 2, 5))
    seen = [0, 3, 4]
    expected = nn.functional.cross_entropy(student[seen], batch.labels[seen])
    torch.testing.assert_close(total.parts["hard_label"], expected.detach())
    whole = at(objective(soft()), student, teacher, batch)
    torch.testing.assert_close(total.parts["soft_target"], whole.parts["soft_target"])


def test_rows_without_a_label_have_no_gradient_from_the_hard_term(student, teacher, batch):
    at(objective(hard()), student, teacher, unlabelled(batch, 1, 4)).loss.backward()
    assert (student.grad[[1, 4]] == 0).all()
    assert (student.grad[[0, 2, 3, 5]] != 0).any(dim=1).all()


@pytest.mark.parametrize("labels", [None, torch.full((6,), -1)])
def test_a_batch_without_a_label_adds_nothing_and_can_be_learned_from(student, teacher, labels):
    batch = Batch(inputs=torch.zeros(6, 1), labels=labels)
    total = at(objective(hard(), soft()), student, teacher, batch)
    alone = at(objective(soft()), student, teacher, batch)
    assert total.parts["hard_label"] == 0
    torch.testing.assert_close(total.loss, alone.loss)
    only = at(objective(hard()), student, None, batch)
    only.loss.backward()
    assert (student.grad == 0).all()


def test_wild_answers_to_unlabelled_rows_do_not_matter(batch):
    student = torch.zeros(6, 3)
    student[1], student[4] = torch.inf, torch.nan
    student.requires_grad_()
    total = at(objective(hard()), student, None, unlabelled(batch, 1, 4))
    assert float(total.loss.detach()) == pytest.approx(math.log(3))
    total.loss.backward()
    assert student.grad.isfinite().all()


def test_the_order_of_rows_and_of_terms_does_not_matter(student, teacher, batch):
    batch = unlabelled(batch, 0)
    total = at(objective(hard(0.3), soft(0.7)), student, teacher, batch)
    turned = at(
        objective(soft(0.7), hard(0.3)),
        student.flip(0),
        Knowledge(fields={"logits": teacher["logits"].flip(0)}),
        Batch(inputs=batch.inputs, labels=batch.labels.flip(0)),
    )
    torch.testing.assert_close(turned.loss, total.loss)


def test_a_loss_of_ones_own_need_not_know_of_missing_labels(student, batch):
    class Brier(nn.Module):
        def forward(self, own: Float[Tensor, " batch classes"], labels: Tensor) -> Tensor:
            target = nn.functional.one_hot(labels.clamp_min(0), 3)
            return ((own.softmax(1) - target) ** 2).sum(1)

    total = at(objective(hard(loss=Brier())), student, None, unlabelled(batch, 0, 1))
    seen = [2, 3, 4, 5]
    expected = Brier()(student[seen], batch.labels[seen]).mean()
    torch.testing.assert_close(total.loss, expected)


def test_the_gradient_reaches_the_student_and_not_the_teacher(student, batch):
    logits = torch.randn(6, 3, requires_grad=True)
    at(
        objective(soft(), mse()), student, Knowledge(fields={"logits": logits}), batch
    ).loss.backward()
    assert logits.grad is None
    assert (student.grad != 0).any()


def test_at_equality_the_soft_terms_are_exactly_0(student, batch):
    same = Knowledge(fields={"logits": student.detach().clone()})
    assert at(objective(soft(), mse()), student, same, batch).loss == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_student_in_half_precision_is_compared_with_the_teachers_own_digits(batch, dtype):
    """And not with what is left of them in half precision."""
    other = torch.randn(6, 3)
    half = torch.randn(6, 3).to(dtype).requires_grad_()
    total = at(objective(mse()), half, Knowledge(fields={"logits": other}), batch)
    assert total.loss.dtype == torch.float32
    expected = LogitMSE()(half.detach().float(), other).mean()
    torch.testing.assert_close(total.loss.detach(), expected, rtol=0, atol=0)
    total.loss.backward()
    assert half.grad.dtype == dtype


def test_a_double_student_stays_double(student, teacher, batch):
    assert (
        at(objective(hard(), soft()), student.double(), teacher, batch).loss.dtype == torch.float64
    )


# --- regression ----------------------------------------------------------------------------------


def values_objective(weight=0.5):
    return objective(
        Term(name="hard_value", loss=HardValue(), reads="values", labels=True, weight=weight),
        Term(name="soft_value", loss=SoftValue(), reads="values", needs=("values",), weight=0.5),
        task=VALUES,
        offers=frozenset({"values"}),
    )


def test_regression_losses_are_in_units_of_the_labels_spread():
    student = torch.tensor([[12.0, -1.0], [10.0, -1.0]])
    labels = torch.tensor([[10.0, -1.0], [float("nan"), 0.0]])
    teacher = Knowledge(fields={"values": torch.tensor([[12.0, -1.0], [10.0, 0.0]])})
    batch = Batch(inputs=torch.zeros(2, 1), labels=labels)
    total = at(values_objective(), student, teacher, batch)
    assert float(total.parts["hard_value"]) == pytest.approx(
        0.5
    )  # one spread, in one of two targets
    assert float(total.parts["soft_value"]) == pytest.approx(1.0)  # 2 spreads, in 1 of 4
    assert float(total.loss) == pytest.approx(0.75)


# --- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "epoch", "expected"), [
    ("linear", 0, 2.0), ("linear", 2.5, 1.5), ("linear", 5, 1.0), ("linear", 10, 0.0),
    ("cosine", 0, 2.0), ("cosine", 5, 1.0), ("cosine", 10, 0.0),
    ("cosine", 2.5, 2 - (1 - math.cos(math.pi / 4))), ("linear", 99, 0.0), ("cosine", 99, 0.0),
])  # fmt: skip
def test_a_schedule_goes_from_start_to_end_over_the_whole_training(kind, epoch, expected):
    schedule = Schedule(kind=kind, start=2, end=0)
    assert scheduled(schedule, epoch=float(epoch), epochs=10) == pytest.approx(expected, abs=1e-12)


def test_a_schedule_of_its_own_length_stays_at_its_end():
    schedule = Schedule(start=0, end=1, epochs=4)
    found = [scheduled(schedule, epoch=float(e), epochs=10) for e in (0, 1, 2, 4, 7, 10)]
    assert found == [0, 0.25, 0.5, 1, 1, 1]


def test_a_number_is_its_own_schedule():
    assert scheduled(0.3, epoch=7.0, epochs=10) == 0.3


def test_a_scheduled_weight_counts_at_its_epoch(student, teacher, batch):
    made = objective(hard(), soft(Schedule(start=0, end=2)))
    for epoch, weight in ((0, 0.0), (2.5, 0.5), (10, 2.0)):
        total = at(made, student, teacher, batch, epoch=epoch)
        expected = total.parts["hard_label"] + weight * total.parts["soft_target"]
        torch.testing.assert_close(total.loss.detach(), expected)


def test_a_scheduled_temperature_counts_at_its_epoch(student, teacher, batch):
    made = objective(scheduled_soft(Schedule(start=1, end=5)))
    for epoch, temperature in ((0, 1.0), (5, 3.0), (10, 5.0)):
        total = at(made, student, teacher, batch, epoch=epoch)
        expected = at(objective(soft(temperature=temperature)), student, teacher, batch)
        torch.testing.assert_close(total.loss, expected.loss)


def test_a_loss_without_a_schedule_keeps_its_own_temperature(student, teacher, batch):
    first = at(objective(soft(temperature=3.0)), student, teacher, batch, epoch=0)
    later = at(objective(soft(temperature=3.0)), student, teacher, batch, epoch=9)
    assert torch.equal(first.loss, later.loss)


# --- terms that are switched off -----------------------------------------------------------------


def test_a_term_of_weight_0_brings_neither_nan_nor_gradient(student, batch):
    broken = Knowledge(fields={"logits": torch.full((6, 3), torch.nan)})
    total = at(objective(hard(), soft(0.0)), student, broken, batch)
    total.loss.backward()
    alone = at(objective(hard()), student, None, batch)
    assert torch.equal(total.loss, alone.loss)
    assert student.grad.isfinite().all()
    assert total.parts["soft_target"].isnan()


def test_where_no_term_counts_yet_the_loss_is_0_and_can_be_gone_back_through(
    student, teacher, batch
):
    total = at(objective(soft(Schedule(start=0, end=1))), student, teacher, batch, epoch=0)
    assert total.loss == 0
    total.loss.backward()
    assert (student.grad == 0).all()


def test_without_gradient_the_loss_is_only_a_number(student, teacher, batch):
    with torch.no_grad():
        total = at(objective(hard(), soft()), student, teacher, batch)
    assert not total.loss.requires_grad


# --- what is refused -----------------------------------------------------------------------------


def test_a_teacher_that_does_not_offer_what_a_term_needs_is_refused_at_once():
    with pytest.raises(ModelError) as error:
        objective(hard(), soft(), offers=frozenset({"values", "hidden"}))
    text = str(error.value)
    assert "`soft_target` needs the teacher's logits" in text
    assert "the teacher offers hidden, values" in text
    with pytest.raises(ModelError, match="the teacher offers nothing"):
        objective(soft(), offers=frozenset())


def test_a_term_for_another_task_is_refused():
    with pytest.raises(ModelError, match="`soft_target` reads logits, but a student of regression"):
        objective(soft(), task=VALUES)


def test_an_objective_without_terms_is_refused():
    with pytest.raises(ModelError, match="at least one term"):
        objective()


def test_a_missing_teacher_is_named_by_the_term_that_wants_it(student, batch):
    with pytest.raises(ModelError, match="`soft_target` needs a teacher"):
        at(objective(hard(), soft()), student, None, batch)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_term_that_is_not_finite_is_named_with_all_values(student, batch, wrong):
    broken = Knowledge(fields={"logits": torch.full((6, 3), wrong)})
    with pytest.raises(TrainingError) as error:
        at(objective(hard(), mse(0.5)), student, broken, batch)
    text = str(error.value)
    assert "but `logit_mse` is not" in text
    assert "hard_label = " in text
    assert "logit_mse = " in text


def test_only_terms_that_count_are_blamed(student, batch):
    student = torch.full((6, 3), torch.nan)
    broken = Knowledge(fields={"logits": torch.full((6, 3), torch.nan)})
    with pytest.raises(TrainingError, match="but `hard_label` is not"):
        at(objective(hard(), soft(0.0)), student, broken, batch)


def test_a_sum_that_overflows_blames_what_was_summed(student, teacher, batch):
    with pytest.raises(TrainingError, match="`hard_label`, `soft_target` is not"):
        at(objective(hard(3e38), soft(3e38)), student * 30, teacher, batch)


def test_needs_are_those_of_all_terms():
    assert objective(hard()).needs == frozenset()
    assert objective(hard(), soft(), mse()).needs == LOGITS


def test_shapes_that_do_not_fit_are_refused(student, batch, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    narrow = Knowledge(fields={"logits": torch.zeros(6, 1)})
    with pytest.raises(ValueError, match=r"nothing is broadcast"):
        at(objective(mse()), student, narrow, batch)


# --- the control ---------------------------------------------------------------------------------


def control(*terms, task=CLASSES):
    return control_objective(terms, task=task)


def weights(made):
    return {term.name: term.weight for term in made.terms}


def test_a_control_has_the_hard_terms_alone_at_full_weight(student, teacher, batch):
    made = control(hard(0.1), soft(0.9))
    assert weights(made) == {"hard_label": 1.0}
    assert made.needs == frozenset()
    expected = nn.functional.cross_entropy(student, batch.labels)
    torch.testing.assert_close(at(made, student, None, batch).loss, expected)


def test_several_hard_terms_keep_their_shares():
    smooth = hard(0.3, name="hard_label#2", loss=HardLabel(label_smoothing=0.1))
    found = weights(control(hard(0.1), smooth, soft(0.6)))
    assert found == pytest.approx({"hard_label": 0.25, "hard_label#2": 0.75})


def test_the_constants_of_a_hard_term_stay():
    smooth = HardLabel(label_smoothing=0.1)
    assert control(hard(0.1, loss=smooth)).terms[0].loss is smooth


@pytest.mark.parametrize(
    "terms", [(), (soft(),), (hard(0.0), soft()), (hard(0.0), hard(0.0, name="other"))]
)
def test_without_a_hard_term_that_counts_the_tasks_own_loss_stands_in(student, batch, terms):
    made = control(*terms)
    assert weights(made) == {"hard": 1.0}
    total = at(made, student, None, batch)
    torch.testing.assert_close(total.loss, nn.functional.cross_entropy(student, batch.labels))
    total.loss.backward()


@pytest.mark.parametrize("schedule", [
    Schedule(start=0, end=1), Schedule(start=0.9, end=0.1, epochs=3),
    Schedule(start=1, end=0, kind="cosine"),
])  # fmt: skip
def test_a_schedule_between_teacher_and_labels_means_nothing_to_a_control(schedule):
    assert weights(control(hard(schedule), soft())) == {"hard_label": 1.0}


def test_a_schedule_beside_a_number_counts_with_its_middle():
    found = weights(control(hard(Schedule(start=0, end=1)), hard(1.5, name="other")))
    assert found == {"hard_label": 0.25, "other": 0.75}


def test_a_regressions_control_is_in_the_same_units():
    made = control(task=VALUES)
    batch = Batch(inputs=torch.zeros(2, 1), labels=torch.tensor([[10.0, -1.0], [12.0, torch.nan]]))
    total = at(made, torch.tensor([[14.0, -1.0], [0.0, 0.0]]), None, batch)
    assert float(total.loss) == pytest.approx(2.0)


# --- mixed rows, and teachers that list some outcomes --------------------------------------------


class TestMixedRows:
    student = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, -1.0], [1.0, 1.0, 3.0]])

    def loss(self, labels, partners, shares):
        term = Term(name="hard", loss=HardLabel(), reads="logits", labels=True)
        objective = Objective([term], task=CLASSES, offers=frozenset())
        batch = Batch(
            inputs=torch.zeros(3, 1),
            labels=torch.tensor(labels),
            partner_labels=torch.tensor(partners),
            shares=torch.tensor(shares),
        )
        return objective(self.student, None, batch, epoch=0.0, epochs=1).loss

    def expected(self, row, label):
        return -self.student[row].log_softmax(dim=0)[label]

    def test_both_labels_count_by_their_share(self):
        found = self.loss([0, 1, 2], [2, 1, 0], [0.25, 0.5, 1.0])
        rows = [
            0.25 * self.expected(0, 0) + 0.75 * self.expected(0, 2),
            self.expected(1, 1),
            self.expected(2, 2),
        ]
        torch.testing.assert_close(found, torch.stack(rows).mean())

    def test_a_partner_without_a_label_leaves_all_to_the_rows_own(self):
        found = self.loss([0, 1, 2], [-1, -1, -1], [0.25, 0.5, 0.1])
        rows = [self.expected(row, row) for row in range(3)]
        torch.testing.assert_close(found, torch.stack(rows).mean())

    def test_a_row_without_a_label_counts_for_nothing_whatever_its_partner_has(self):
        found = self.loss([0, -1, -1], [1, 2, 0], [0.5, 0.5, 0.5])
        torch.testing.assert_close(found, 0.5 * self.expected(0, 0) + 0.5 * self.expected(0, 1))


class TestListedOutcomes:
    soft = Term(name="soft", loss=SoftTargetKL(temperature=2.0), reads="logits", needs=("logits",))

    def told(self, classes=3):
        logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]]).log_softmax(dim=1)
        return Outcomes(
            ids=torch.tensor([[0, 1, 2], [0, 1, 2]]),
            log_mass=logits,
            rest=torch.full((2,), -torch.inf),
            classes=classes,
        ), logits

    def loss(self, told, own):
        objective = Objective([self.soft], task=CLASSES, offers=frozenset({"logits"}),
                              listed=frozenset({"logits"}))  # fmt: skip
        batch = Batch(inputs=torch.zeros(2, 1))
        knowledge = Knowledge(fields={"logits": told})
        return objective(own, knowledge, batch, epoch=0.0, epochs=1).loss

    def test_all_classes_listed_are_the_dense_loss(self):
        told, logits = self.told()
        own = torch.tensor([[0.5, 0.1, 0.0], [1.0, 0.0, 2.0]], requires_grad=True)
        found = self.loss(told, own)
        dense = self.soft.loss(own, logits).mean()
        torch.testing.assert_close(found, dense)
        gradient = torch.autograd.grad(found, own)[0]
        torch.testing.assert_close(gradient, torch.autograd.grad(dense, own)[0])

    def test_another_number_of_classes_is_refused_with_both(self):
        with pytest.raises(ModelError, match=r"know 4 classes.*answers 3"):
            self.loss(self.told(classes=4)[0], torch.zeros(2, 3))

    def test_a_loss_that_needs_every_number_is_refused_before_training(self):
        term = Term(name="mse", loss=LogitMSE(), reads="logits", needs=("logits",))
        with pytest.raises(ModelError, match=r"`mse` needs every number.*dense `labels.codec`"):
            Objective([term], task=CLASSES, offers=frozenset({"logits"}),
                      listed=frozenset({"logits"}))  # fmt: skip

    def test_sequences_are_refused_until_something_can_read_them(self):
        ragged = Ragged(values=torch.zeros(3, 3), lengths=torch.tensor([1, 2]))
        with pytest.raises(ModelError, match="sequences of different lengths"):
            self.loss(ragged, torch.zeros(2, 3))


# --- constraints on weights ----------------------------------------------------------------------


def held(weight=1.0, **changes):
    loss = changes.pop("loss", None) or L2SP()
    return Term(loss=loss, weight=weight, **({"name": "l2_sp", "reads": "weights"} | changes))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(4, 3)


def moved(network, by):
    with torch.no_grad():
        network.weight += by
    return trained(network)


def test_a_constraint_counts_how_far_the_weights_have_gone(student, teacher, batch, network):
    made = objective(soft(), held(0.5))
    made.begin(network)
    weights = moved(network, 2.0)
    plain = at(objective(soft()), student, teacher, batch)
    total = made(student, teacher, batch, epoch=0.0, epochs=1, weights=weights)
    assert float(total.parts["l2_sp"]) == pytest.approx(12 * 4 / 2)
    assert total.loss.item() == pytest.approx(plain.loss.item() + 0.5 * 24)
    total.loss.backward()
    torch.testing.assert_close(network.weight.grad, torch.full((3, 4), 0.5 * 2.0))
    assert (network.bias.grad == 0).all()


def test_the_start_is_no_weight_and_stays_where_it_was(network):
    made = objective(soft(), held())
    made.begin(network)
    before = {name: value.clone() for name, value in made.start.weights().items()}
    moved(network, 1.0)
    assert not list(made.parameters())
    assert len(made.state_dict()) == 2
    assert all(torch.equal(made.start.weights()[name], before[name]) for name in before)
    other = objective(soft(), held())
    other.begin(network)
    other.load_state_dict(made.state_dict())
    assert all(torch.equal(other.start.weights()[name], before[name]) for name in before)
    made.begin(nn.Linear(2, 2))
    assert made.start.weights()["weight"].shape == (2, 2)


def test_frozen_weights_are_free(network):
    network.bias.requires_grad_(False)
    assert list(trained(network)) == ["weight"]


def test_an_objective_without_a_constraint_remembers_nothing(network):
    made = objective(hard())
    made.begin(network)
    assert made.start is None
    assert not made.constrained


def test_a_constraint_without_weights_or_start_says_so(student, teacher, batch, network):
    made = objective(soft(), held())
    with pytest.raises(ModelError, match="reads the student's weights, but none were given"):
        at(made, student, teacher, batch)
    with pytest.raises(ModelError, match=r"call its `begin\(student\)`"):
        made(student, teacher, batch, epoch=0.0, epochs=1, weights=trained(network))


def test_a_constraint_that_gives_rows_is_refused(student, teacher, batch, network):
    class Rows(nn.Module):
        def forward(self, weights, start):
            return torch.ones(3)

    made = objective(soft(), held(loss=Rows()))
    made.begin(network)
    with pytest.raises(ModelError, match=r"one value, but `l2_sp` gave \[3\]"):
        made(student, teacher, batch, epoch=0.0, epochs=1, weights=trained(network))


def test_constraints_alone_teach_nothing():
    with pytest.raises(ModelError, match="needs a term that teaches, but `l2_sp` only holds"):
        objective(held())


def test_the_weight_of_a_constraint_cannot_be_found():
    with pytest.raises(ModelError, match=r"`l2_sp` holds weights, .* give `weight` as a number"):
        objective(hard(), held("auto"))


def test_a_control_keeps_constraints_as_they_are():
    made = control(hard(0.25), soft(0.75), held(0.01))
    assert {t.name: t.weight for t in made.terms} == {"hard_label": 1.0, "l2_sp": 0.01}
    alone = control(soft(), held(0.01))
    assert {t.name: t.weight for t in alone.terms} == {"hard": 1.0, "l2_sp": 0.01}


def test_a_constraint_of_ones_own_need_not_be_the_controls():
    made = control(hard(), held(control=False))
    assert [term.name for term in made.terms] == ["hard_label"]


def test_a_projection_is_off_where_its_weight_is_zero(network):
    ball = NormBall(radius=0.5, hold="projection")
    for weight, far in ((1.0, 0.5), (0.0, math.sqrt(12) * 2.0)):
        made = objective(hard(), held(weight, name="norm_ball", loss=ball))
        start = network.weight.detach().clone()
        made.begin(network)
        moved(network, 2.0)
        made.project(network, epoch=0.0, epochs=1)
        assert float((network.weight.detach() - start).norm()) == pytest.approx(far, rel=1e-5)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), "a", True, None])
def test_a_weight_that_means_nothing_is_refused_in_a_term_made_by_hand_too(weight):
    term = hard(name="odd")
    object.__setattr__(term, "weight", weight)  # past the types that only tests look at
    with pytest.raises(ModelError, match=r"finite and not negative.* but `odd` has .*usual is 1"):
        check_together([term])
