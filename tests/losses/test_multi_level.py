"""Several levels of logits: laws, a reference in loops, the published mask, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from conformance.numbers import agrees, kl, quickly, random_logits, seeds, softmax, two_sets
from understudy.losses.logits import soft_target_kl
from understudy.losses.multi_level import MultiLevel, multi_level

PLAIN = {"temperatures": [2.0, 5.0], "instance": 1.0, "batch": 1.0, "classes": 1.0, "mask": "none"}
weights = st.floats(0.0, 3.0)


def products(chances):
    """Of every two rows."""
    return np.array([[(a * b).sum() for a in chances] for b in chances])


def published_shares(teacher):
    chances = np.array([softmax(row) for row in teacher])
    sure, mass = chances.max(axis=1), chances.sum(axis=0)
    return [np.mean([v <= np.percentile(x, 50) for v in x]) for x in (sure, mass)]


def reference(student, teacher, *, temperatures, instance, batch, classes, mask):
    rows, columns = published_shares(teacher) if mask == "scalar" else (1.0, 1.0)
    total = 0.0
    for heat in temperatures:
        q, p = (np.array([softmax(row / heat) for row in x]) for x in (student, teacher))
        total += rows * instance * heat**2 * np.mean([kl(a, b) for a, b in zip(p, q, strict=True)])
        total += rows * batch * ((products(p) - products(q)) ** 2).sum() / len(p)
        total += columns * classes * ((products(p.T) - products(q.T)) ** 2).sum() / p.shape[1]
    return total


class TestMultiLevel(LossLaws):
    @pytest.fixture(params=["scalar", "none"])
    def case(self, request):
        return LossCase(
            loss=MultiLevel(mask=request.param),
            target=random_logits,
            equal=torch.clone,
            rowwise=False,
            alone=False,
        )


class TestRelationsAlone(LossLaws):
    @pytest.fixture
    def case(self):
        loss = MultiLevel(instance=0.0, temperatures=[1.0, 4.0])
        return LossCase(
            loss=loss, target=random_logits, equal=torch.clone, rowwise=False, alone=False
        )


@quickly
@given(
    seed=seeds,
    rows=st.integers(1, 5),
    classes=st.integers(2, 5),
    instance=weights,
    batch=weights,
    third=weights,
    mask=st.sampled_from(["scalar", "none"]),
)
def test_the_mean_over_rows_is_the_published_number(
    seed, rows, classes, instance, batch, third, mask
):
    student, teacher = two_sets(seed, rows=rows, classes=classes)
    constants = {"temperatures": [2, 3.5], "instance": instance, "batch": batch}
    constants |= {"classes": third, "mask": mask}
    agrees(
        lambda own: multi_level(own, torch.tensor(teacher), **constants),
        lambda own: reference(own, teacher, **constants),
        student,
    )


def test_the_published_mask_is_a_half_for_even_counts_and_more_for_odd_ones():
    for rows, share in [(6, 1 / 2), (5, 3 / 5), (1, 1.0)]:
        student, teacher = (torch.tensor(x[:rows]) for x in two_sets(1))
        alone = {**PLAIN, "batch": 0.0, "classes": 0.0}
        scaled = multi_level(student, teacher, **{**alone, "mask": "scalar"})
        whole = multi_level(student, teacher, **alone)
        torch.testing.assert_close(scaled, share * whole)


def test_one_temperature_without_relations_is_the_soft_target():
    student, teacher = map(torch.tensor, two_sets(2))
    constants = {**PLAIN, "temperatures": [4], "batch": 0.0, "classes": 0.0}
    values = multi_level(student, teacher, **constants)
    assert torch.equal(values, soft_target_kl(student, teacher, temperature=4.0))


def test_each_row_has_its_own_line_of_the_rows_products_and_all_share_the_classes():
    student, teacher = two_sets(3, rows=3, classes=4)
    q, p = (np.array([softmax(row / 2) for row in x]) for x in (student, teacher))
    own, goal = torch.tensor(student), torch.tensor(teacher)
    one = {**PLAIN, "temperatures": [2.0], "instance": 0.0}
    lines = multi_level(own, goal, **{**one, "classes": 0.0})
    np.testing.assert_allclose(
        lines.numpy(), ((products(p) - products(q)) ** 2).sum(axis=1), rtol=1e-9
    )
    shared = multi_level(own, goal, **{**one, "batch": 0.0})
    expected = ((products(p.T) - products(q.T)) ** 2).sum() / 4
    np.testing.assert_allclose(shared.numpy(), np.full(3, expected), rtol=1e-9)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("constants", "law"),
    [
        ({"temperatures": []}, r"`temperatures` must name one or more, but got \[\]"),
        ({"temperatures": [2.0, 0.0]}, "`temperatures > 0` must hold, but got temperatures=0.0"),
        ({"instance": -1.0}, "`instance >= 0` must hold"),
        ({"batch": float("nan")}, "`batch >= 0` must hold"),
        ({"classes": float("inf")}, "`classes >= 0` must hold"),
        ({"mask": "rows"}, "`mask` must be one of scalar, none, but got mask='rows'"),
    ],
)
def test_bad_constants_are_refused(constants, law):
    with pytest.raises(ValueError, match=law):
        MultiLevel(**constants)
    with pytest.raises(ValueError, match=law):
        multi_level(torch.zeros(2, 2), torch.zeros(2, 2), **{**PLAIN, **constants})


def test_the_module_prints_its_constants():
    printed = "MultiLevel(temperatures=(2.0, 3.0), instance=1.0, batch=1.0, classes=1.0, mask=none)"
    assert str(MultiLevel(temperatures=[2, 3], mask="none")) == printed
