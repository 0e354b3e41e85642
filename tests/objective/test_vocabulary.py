"""The objective of a language model against the same terms on all logits, in float64."""

from dataclasses import replace

import pytest
import torch

from understudy import losses
from understudy.contracts import Batch, Knowledge, Outcomes, Ragged
from understudy.errors import ModelError, TrainingError
from understudy.losses.vocabulary import HiddenLabels, LinearHead
from understudy.models import GPT
from understudy.objective import Term
from understudy.objective.vocabulary import STATES, VocabularyObjective, spoken
from understudy.recipe import Schedule
from understudy.tasks.language_model import LanguageModel

VOCABULARY, DIM = 11, 6
TASK = LanguageModel(vocabulary=VOCABULARY, end=0, special=(0,))
KINDS = {
    "soft_target": losses.SoftTargetKL(temperature=2.0),
    "reverse_kl": losses.ReverseKL(temperature=1.5),
    "jensen_shannon": losses.JensenShannon(beta=0.3, temperature=2.0),
    "skew_kl": losses.SkewKL(skew=0.2, temperature=2.0, direction="reverse"),
}
NOW = {"epoch": 0.0, "epochs": 4}


def soft(name, **more):
    return Term(name=name, loss=KINDS[name], reads="logits", needs=("logits",), **more)


def hard(**more):
    loss = losses.HardLabel(label_smoothing=0.1)
    return Term(name="hard_label", loss=loss, reads="logits", labels=True, **more)


@pytest.fixture
def case():
    """States, heads and a batch of two rows of which some positions count, in float64."""
    draw = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    labels = torch.randint(0, VOCABULARY, (2, 5), generator=draw)
    labels[0, 2], labels[1, 4] = -1, -1
    batch = Batch(inputs=torch.zeros(2, 5, dtype=torch.int32), labels=labels, positions=labels >= 0)
    student = HiddenLabels(
        hidden=drawn(2, 5, DIM).requires_grad_(),
        head=LinearHead(weight=drawn(VOCABULARY, DIM).requires_grad_()),
    )
    teacher = HiddenLabels(hidden=drawn(2, 5, 4), head=LinearHead(weight=drawn(VOCABULARY, 4)))
    return student, teacher, batch


def logits(side, batch):
    return (side.hidden @ side.head.weight.t())[batch.positions]


def listed(dense, k=4):
    log_mass, ids = dense.log_softmax(1).topk(k)
    rest = torch.log1p(-log_mass.exp().sum(1))
    return Outcomes(ids=ids, log_mass=log_mass, rest=rest, classes=VOCABULARY)


def ragged(values, batch):
    return Knowledge(fields={"logits": Ragged(values=values, lengths=batch.positions.sum(1))})


def gradients(loss, student):
    return torch.autograd.grad(loss, [student.hidden, student.head.weight], retain_graph=True)


def objective(terms, offers=("logits",), **more):
    return VocabularyObjective(terms, task=TASK, offers=frozenset(offers), **more)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("told", ["logits", "states"])
def test_one_pass_is_the_sum_of_the_terms_on_all_logits(kind, told, case):
    student, teacher, batch = case
    terms = [hard(weight=0.3), soft(kind, weight=0.7)]
    own, goal = logits(student, batch), logits(teacher, batch)
    wanted = 0.3 * terms[0].loss(own, batch.labels[batch.positions]).mean()
    divergence = terms[1].loss(own, goal).mean()
    wanted = wanted + 0.7 * divergence
    if told == "states":
        made = objective(terms, offers=[STATES], head=teacher.head)
        knowledge = Knowledge(fields={STATES: teacher.hidden})
    else:
        made, knowledge = objective(terms), ragged(goal, batch)
    assert made.needs == {told}
    found = made(student, knowledge, batch, **NOW)
    torch.testing.assert_close(found.loss, wanted)
    torch.testing.assert_close(found.parts[kind], divergence.detach())
    for ours, theirs in zip(
        gradients(found.loss, student), gradients(wanted, student), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    means = made.means(student, knowledge, batch, **NOW, features={})
    torch.testing.assert_close(means[kind], divergence)


def test_listed_outcomes_are_compared_as_everywhere(case):
    student, teacher, batch = case
    few = listed(logits(teacher, batch))
    term = soft("soft_target")
    wanted = term.loss.outcomes(
        logits(student, batch),
        ids=few.ids,
        log_mass=few.log_mass,
        rest=few.rest,
        sampled=False,
        entropy=None,
    ).mean()
    found = objective([term])(student, ragged(few, batch), batch, **NOW)
    torch.testing.assert_close(found.loss, wanted)


@pytest.mark.parametrize("at", [1.0, 2.0])
def test_listed_outcomes_and_hard_labels_go_together(at, case):
    student, teacher, batch = case
    few = listed(logits(teacher, batch))
    few.ids[2, 1:], few.log_mass[2, 1:] = -1, -torch.inf  # a shorter list
    few.rest[2] = torch.log1p(-few.log_mass[2, 0].exp())
    told = {"ids": few.ids, "log_mass": few.log_mass, "rest": few.rest}
    term = replace(soft("soft_target", weight=0.6), loss=losses.SoftTargetKL(temperature=at))
    terms = [hard(weight=0.4), term]
    own = logits(student, batch)
    wanted = 0.6 * term.loss.outcomes(own, **told, sampled=False, entropy=None).mean()
    wanted = wanted + 0.4 * terms[0].loss(own, batch.labels[batch.positions]).mean()
    found = objective(terms)(student, ragged(few, batch), batch, **NOW)
    torch.testing.assert_close(found.loss, wanted)
    for ours, theirs in zip(
        gradients(found.loss, student), gradients(wanted, student), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_several_divergences_schedules_and_switched_off_terms(case):
    student, teacher, batch = case
    goal = logits(teacher, batch)
    falling = Schedule(start=1.0, end=0.0)
    warm = Schedule(start=4.0, end=2.0)
    terms = [
        hard(weight=0.5),
        soft("soft_target", weight=falling, temperature=warm),
        soft("reverse_kl", weight=0.25),
    ]
    made = objective(terms)
    own = logits(student, batch)
    for epoch, share, at in ((0.0, 1.0, 4.0), (2.0, 0.5, 3.0), (4.0, 0.0, 2.0)):
        wanted = (
            0.5 * terms[0].loss(own, batch.labels[batch.positions]).mean()
            + share * terms[1].loss(own, goal, temperature=at).mean()
            + 0.25 * terms[2].loss(own, goal).mean()
        )
        found = made(student, ragged(goal, batch), batch, epoch=epoch, epochs=4)
        torch.testing.assert_close(found.loss, wanted)
    assert found.parts["soft_target"] == 0


def test_positions_without_a_label_still_learn_from_the_teacher(case):
    student, teacher, batch = case
    goal = logits(teacher, batch)
    some = batch.labels.clone()
    some[0] = -1
    batch = replace(batch, labels=some)
    terms = [hard(), soft("soft_target")]
    own, seen = logits(student, batch), some[batch.positions]
    wanted = terms[0].loss(own[seen >= 0], seen[seen >= 0]).mean() + terms[1].loss(own, goal).mean()
    found = objective(terms)(student, ragged(goal, batch), batch, **NOW)
    torch.testing.assert_close(found.loss, wanted)


def test_a_batch_in_which_nothing_counts_moves_nothing(case):
    student, teacher, batch = case
    nothing = torch.full_like(batch.labels, -1)
    batch = replace(batch, labels=nothing, positions=nothing >= 0)
    knowledge = ragged(logits(teacher, batch), batch)
    found = objective([hard(), soft("soft_target")])(student, knowledge, batch, **NOW)
    assert float(found.loss.detach()) == 0
    found.loss.backward()
    assert student.hidden.grad is None or not student.hidden.grad.any()


def test_a_control_learns_from_labels_alone(case):
    student, _, batch = case
    made = objective([hard()], offers=())
    assert made.needs == frozenset()
    wanted = made.terms[0].loss(logits(student, batch), batch.labels[batch.positions]).mean()
    torch.testing.assert_close(made(student, None, batch, **NOW).loss, wanted)


def test_labels_outside_the_vocabulary_and_lost_numbers_are_refused(case):
    student, teacher, batch = case
    goal = logits(teacher, batch)
    foreign = batch.labels.clone()
    foreign[0, 0] = VOCABULARY
    with pytest.raises(ModelError, match=r"0 <= labels < 11"):
        objective([hard()], offers=())(student, None, replace(batch, labels=foreign), **NOW)
    few = listed(goal)
    few.ids[1, 2] = VOCABULARY + 4
    with pytest.raises(ModelError, match="teacher with the student's vocabulary"):
        objective([soft("soft_target")])(student, ragged(few, batch), batch, **NOW)
    broken = ragged(goal.clone(), batch)
    broken["logits"].values[3, 4] = torch.nan
    with pytest.raises(TrainingError, match="token 3 is nan"):
        objective([soft("soft_target")])(student, broken, batch, **NOW)
    short = ragged(goal[1:], replace(batch, positions=batch.positions[1:]))
    with pytest.raises(ModelError, match="every position that counts"):
        objective([soft("soft_target")])(student, short, batch, **NOW)
    with pytest.raises(ModelError, match="which positions count"):
        objective([hard()], offers=())(
            student, None, replace(batch, labels=None, positions=None), **NOW
        )
    wide = ragged(torch.zeros(len(goal), 4000, dtype=torch.float64), batch)
    with pytest.raises(ModelError, match="differ by less than 1024"):
        objective([soft("soft_target")])(student, wide, batch, **NOW)


def test_a_batch_without_any_label_still_learns_from_the_teacher(case):
    student, teacher, batch = case
    knowledge = ragged(logits(teacher, batch), batch)
    terms = [hard(weight=0.3), soft("soft_target", weight=0.7)]
    found = objective(terms)(student, knowledge, replace(batch, labels=None), **NOW)
    alone = objective(terms[1:])(student, knowledge, batch, **NOW)
    assert float(found.loss.detach()) > 0
    torch.testing.assert_close(found.loss, alone.loss)
    torch.testing.assert_close(found.parts["soft_target"], alone.parts["soft_target"])


def test_terms_that_are_not_made_for_vocabularies_are_refused():
    logit = Term(name="logit_mse", loss=losses.LogitMSE(), reads="logits", needs=("logits",))
    with pytest.raises(ModelError, match="`logit_mse` is not made for vocabularies"):
        objective([logit])
    sigmoid = replace(soft("soft_target"), loss=losses.SoftTargetKL(head="sigmoid"))
    with pytest.raises(ModelError, match="softmax distributions"):
        objective([sigmoid])
    with pytest.raises(ModelError, match="hard labels once"):
        objective([hard(), replace(hard(), name="hard_label#2")])
    with pytest.raises(ModelError, match="offers nothing"):
        objective([soft("soft_target")], offers=())


def test_a_student_speaks_by_states_and_head():
    torch.manual_seed(0)
    model = GPT(vocabulary=VOCABULARY, context=5, end=0, dim=8, depth=1, heads=2)
    rows = torch.randint(0, VOCABULARY, (2, 5))
    told = spoken(model, rows)
    torch.testing.assert_close(told.hidden @ told.head.weight.t(), model(rows))
    with pytest.raises(ModelError, match="must be a causal model"):
        spoken(torch.nn.Linear(2, 2), rows)
