"""The memory of contrastive distillation: what it draws, remembers, fixes and resumes."""

import math

import pytest
import torch

from understudy.contracts import Batch
from understudy.errors import DataError, ModelError
from understudy.features.contrast import Contrast
from understudy.features.form import Adapted, Adapter
from understudy.losses.contrastive import CRD

IDS = torch.tensor([907, -3, 12, 2**61, 5, 40, 41, 42])
LABELS = torch.tensor([1, 0, 1, -1, 0, 0, 2, 1])


def make(*, seed=0, labels=LABELS, **constants):
    torch.manual_seed(seed)
    chosen = {"width": 4, "negatives": 6, **constants}
    return Contrast([(5,)], [(7,)], ids=IDS, labels=labels, **chosen)


def features(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    sides = [torch.randn(rows, width, generator=generator) for width in (5, 7)]
    return [sides[0]], [sides[1]]


def batch(places):
    ids = IDS[places]
    return Batch(inputs=torch.zeros(len(ids), 1), ids=ids)


def called(adapter, places, seed=1) -> Adapted:
    return adapter(*features(seed, len(places)), batch(places))


def bank_of(adapter, side, place):
    """What is remembered of one row, found by its id."""
    at = int((adapter.ids == IDS[place]).nonzero())
    return getattr(adapter, side)[at]


def test_it_is_an_adapter_and_gives_what_the_loss_takes():
    adapter = make()
    assert isinstance(adapter, Adapter)
    adapted = called(adapter, [0, 3, 5])
    shapes = {name: tuple(value[0].shape) for name, value in adapted.values.items()}
    assert shapes == {
        "student_bank": (3, 7, 4),
        "teacher_bank": (3, 7, 4),
        "student_constant": (),
        "teacher_constant": (),
        "rows": (),
        "temperature": (),
    }
    for side in (adapted.student, adapted.teacher):
        torch.testing.assert_close(side[0].norm(dim=1), torch.ones(3))
    given = {name: value[0] for name, value in adapted.values.items()}
    values = CRD()(adapted.student[0], adapted.teacher[0], **given)
    values.mean().backward()
    assert values.shape == (3,)
    # Both embeddings learn; the banks do not.
    assert all(p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert not any(value[0].requires_grad for value in adapted.values.values())


def test_the_teacher_itself_has_no_gradient():
    student, teacher = features(1, 3)
    teacher[0].requires_grad_()
    adapted = make()(student, teacher, batch([0, 1, 2]))
    adapted.teacher[0].sum().backward()
    assert teacher[0].grad is None


def test_maps_and_tokens_are_averaged():
    torch.manual_seed(0)
    adapter = Contrast([(5, 2, 3)], [(6, 7)], ids=IDS, width=4, negatives=2).eval()
    student, teacher = torch.randn(2, 5, 2, 3), torch.randn(2, 6, 7)
    whole = adapter([student], [teacher], batch([0, 1]))
    means = [student.mean(dim=(2, 3))], [teacher.mean(dim=1)]
    flat = adapter(*means, batch([0, 1]))
    torch.testing.assert_close(whole.student[0], flat.student[0])
    torch.testing.assert_close(whole.teacher[0], flat.teacher[0])


def origins(adapter, candidates, side):
    """The positions in `IDS` of remembered rows."""
    remembered = torch.stack([bank_of(adapter, side, place) for place in range(len(IDS))])
    return torch.cdist(candidates, remembered).argmin(dim=-1)


def test_the_row_comes_first_and_negatives_are_of_other_classes():
    adapter = make(negatives=400).eval()
    places = [0, 1, 3, 6, 7]
    adapted = called(adapter, places)
    drawn = {
        side: origins(adapter, adapted.values[side][0], side)
        for side in ("student_bank", "teacher_bank")
    }
    assert torch.equal(drawn["student_bank"], drawn["teacher_bank"])
    for row, place in zip(drawn["student_bank"], places, strict=True):
        assert int(row[0]) == place
        others = {
            other
            for other in range(len(IDS))
            if other != place and (LABELS[place] < 0 or LABELS[other] != LABELS[place])
        }
        # All of them, and nothing else: 400 draws miss one of seven with a chance of 1e-26.
        assert set(row[1:].tolist()) == others


def test_negatives_are_drawn_evenly():
    adapter = make(negatives=30000).eval()
    adapted = called(adapter, [6])
    row = origins(adapter, adapted.values["student_bank"][0], "student_bank")[0, 1:]
    shares = torch.bincount(row, minlength=len(IDS)) / len(row)
    others = torch.arange(len(IDS)) != 6
    # Five standard deviations of a share of one in seven.
    assert (shares[others] - 1 / 7).abs().max() < 5 * math.sqrt(6 / 49 / 30000)


def test_without_labels_every_other_row_is_a_negative():
    adapter = make(labels=None, negatives=400).eval()
    adapted = called(adapter, [0, 1])
    drawn = origins(adapter, adapted.values["teacher_bank"][0], "teacher_bank")
    for place in (0, 1):
        assert set(drawn[place, 1:].tolist()) == set(range(len(IDS))) - {place}


def test_the_banks_follow_after_they_were_read():
    adapter = make(momentum=0.25)
    before = {side: bank_of(adapter, side, 2).clone() for side in ("student_bank", "teacher_bank")}
    untouched = bank_of(adapter, "student_bank", 4).clone()
    adapted = called(adapter, [2, 7])
    for side, embedded in (("student_bank", adapted.student), ("teacher_bank", adapted.teacher)):
        assert torch.equal(adapted.values[side][0][0, 0], before[side])
        mixed = 0.25 * before[side] + 0.75 * embedded[0][0].detach()
        torch.testing.assert_close(bank_of(adapter, side, 2), mixed / mixed.norm())
    assert torch.equal(bank_of(adapter, "student_bank", 4), untouched)


def test_a_row_that_comes_twice_is_remembered_as_it_came_last():
    adapter, alone = make(), make()
    student, teacher = features(3, 3)
    adapter(student, teacher, batch([2, 5, 2]))
    alone([student[0][1:]], [teacher[0][1:]], batch([5, 2]))
    torch.testing.assert_close(adapter.student_bank, alone.student_bank)


def test_the_constants_are_fixed_on_the_first_batch_of_training():
    adapter = make(temperature=0.5)
    adapter.eval()
    called(adapter, [0, 1])
    assert (adapter.constants == 0).all()
    adapter.train()
    adapted = called(adapter, [0, 1, 2])
    for own, bank, name in (
        (adapted.student, "teacher_bank", "student_constant"),
        (adapted.teacher, "student_bank", "teacher_constant"),
    ):
        scores = torch.einsum("bkd,bd->bk", adapted.values[bank][0], own[0].detach())
        expected = len(IDS) * (scores / 0.5).exp().mean()
        torch.testing.assert_close(adapted.values[name][0], expected)
    fixed = adapter.constants.clone()
    later = called(adapter, [3, 4], seed=2)
    assert torch.equal(adapter.constants, fixed)
    assert later.values["student_constant"][0] == fixed[0]


def test_looking_without_training_changes_nothing():
    adapter = make()
    called(adapter, [0, 1])
    adapter.eval()
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    called(adapter, [2, 3])
    assert all(torch.equal(value, before[name]) for name, value in adapter.state_dict().items())


def test_it_goes_on_exactly_where_it_stopped():
    adapter = make()
    called(adapter, [0, 1, 2])
    state = {name: value.clone() for name, value in adapter.state_dict().items()}
    generator = torch.get_rng_state()
    expected = called(adapter, [3, 4], seed=2)
    resumed = make(seed=99, labels=None)
    resumed.load_state_dict(state)
    torch.set_rng_state(generator)
    again = called(resumed, [3, 4], seed=2)
    assert torch.equal(again.student[0], expected.student[0])
    for name, value in expected.values.items():
        assert torch.equal(again.values[name][0], value[0]), name
    for name, value in adapter.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_an_embedding_of_zeros_is_finite():
    adapter = make()
    torch.nn.init.zeros_(adapter.own.weight)
    torch.nn.init.zeros_(adapter.own.bias)
    adapted = called(adapter, [0, 1])
    given = {name: value[0] for name, value in adapted.values.items()}
    values = CRD()(adapted.student[0], adapted.teacher[0], **given)
    values.mean().backward()
    assert values.isfinite().all()
    assert adapter.student_bank.isfinite().all()
    assert adapter.own.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_works_in_another_precision(dtype):
    adapter = make().to(dtype)
    student, teacher = features(1, 2)
    adapted = adapter([student[0].to(dtype)], [teacher[0].to(dtype)], batch([0, 1]))
    given = {name: value[0] for name, value in adapted.values.items()}
    assert CRD()(adapted.student[0], adapted.teacher[0], **given).isfinite().all()


def test_a_batch_of_no_rows_gives_no_values_and_fixes_nothing():
    adapter = make()
    adapted = called(adapter, [])
    given = {name: value[0] for name, value in adapted.values.items()}
    assert CRD()(adapted.student[0], adapted.teacher[0], **given).shape == (0,)
    assert (adapter.constants == 0).all()


def test_training_brings_two_networks_that_disagree_together():
    torch.manual_seed(4)
    adapter = Contrast([(6,)], [(6,)], ids=torch.arange(40), width=8, negatives=20)
    student = torch.nn.Linear(6, 6)
    inputs = torch.randn(40, 6)
    goal = inputs @ torch.randn(6, 6)
    optimizer = torch.optim.Adam([*student.parameters(), *adapter.parameters()], lr=0.02)
    told = []
    for _ in range(150):
        rows = torch.randperm(40)[:20]
        adapted = adapter(
            [student(inputs[rows])], [goal[rows]], Batch(inputs=inputs[rows], ids=rows)
        )
        given = {name: value[0] for name, value in adapted.values.items()}
        loss = CRD()(adapted.student[0], adapted.teacher[0], **given).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(loss.item())
    assert sum(told[-10:]) < 0.5 * sum(told[:10])
    alike = adapted.student[0] @ adapted.teacher[0].T
    assert (alike.argmax(dim=1) == torch.arange(20)).float().mean() > 0.5


@pytest.mark.parametrize(
    ("ids", "law"),
    [
        (None, "the batch has no ids: give the data set ids"),
        (torch.tensor([12, 13]), "remembers 8 rows, but the batch has others, such as id 13"),
        (torch.tensor([2**62, 12]), f"such as id {2**62}"),
    ],
)
def test_rows_that_it_does_not_know_are_refused(ids, law):
    adapter = make()
    with pytest.raises(DataError, match=law):
        adapter(*features(1, 2), Batch(inputs=torch.zeros(2, 1), ids=ids))


@pytest.mark.parametrize(
    ("constants", "law"),
    [
        ({"momentum": 1.0}, "`0 <= momentum < 1` must hold, but got momentum=1.0"),
        ({"temperature": 0.02}, "`temperature >= 0.03` must hold, but got temperature=0.02"),
        ({"temperature": math.nan}, "but got temperature=nan"),
        ({"negatives": 0}, "`negatives >= 1` must hold, but got negatives=0"),
        ({"width": 0}, "`width >= 1` must hold, but got width=0"),
    ],
)
def test_bad_constants_are_refused(constants, law):
    with pytest.raises(ModelError, match=law):
        make(**constants)


def test_more_than_one_pair_of_layers_is_refused():
    with pytest.raises(ModelError, match="takes one pair of layers, but got 2"):
        Contrast([(5,), (5,)], [(7,), (7,)], ids=IDS)


@pytest.mark.parametrize(
    ("ids", "labels", "law"),
    [
        (torch.tensor([1, 2, 1]), None, r"each once, but got torch.int64 \(3,\) with 2 different"),
        (torch.tensor([1.0, 2.0]), None, "`ids` must be int64"),
        (torch.tensor([1, 2]), torch.tensor([0, 0]), "rows of another class.* all 2 are of one"),
        (torch.tensor([1]), None, "rows of another class.* all 1 are of one"),
        (torch.tensor([1, 2]), torch.tensor([0.5, 1]), r"`labels` must be int64 \[rows\] = \(2,\)"),
        (torch.tensor([1, 2]), torch.tensor([0]), r"but got torch.int64 \(1,\)"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused(ids, labels, law):
    with pytest.raises(DataError, match=law):
        Contrast([(5,)], [(7,)], ids=ids, labels=labels)
