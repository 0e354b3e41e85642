"""Losses on hidden states: laws, references in plain loops, padding that does not matter."""

import numpy as np
import pytest
import torch

from conformance.loss import LossCase, LossLaws
from understudy.losses.hidden import PKD, TinyBERTHidden, pkd, tinybert_hidden

TOKENS, WIDTH = 4, 3


def other_states(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


def other_layers(student, generator):
    return [other_states(layer, generator) for layer in student]


def same_layers(student):
    return [layer.clone() for layer in student]


def some_mask(student, generator):
    first = student[0] if isinstance(student, list) else student
    # Row 1 begins with padding.
    lengths = torch.randint(1, first.shape[1] + 1, (len(first), 1), generator=generator)
    return {"mask": torch.arange(first.shape[1]) < lengths}


class TestTinyBERTHidden(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=TinyBERTHidden(),
            target=other_states,
            shape=(TOKENS, WIDTH),
            narrow=(1, 1),
            equal=torch.clone,
        )


class TestTinyBERTHiddenWithPadding(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=TinyBERTHidden(),
            target=other_states,
            shape=(TOKENS, WIDTH),
            narrow=(1, 1),
            also=some_mask,
            equal=torch.clone,
        )


class TestPKD(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=PKD(),
            target=other_layers,
            shape=[(TOKENS, WIDTH), (TOKENS, WIDTH + 2)],
            narrow=[(1, 1)],
            equal=same_layers,
        )


class TestPKDWithPadding(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=PKD(normalize=False),
            target=other_layers,
            shape=[(TOKENS, WIDTH)],
            narrow=[(1, 1)],
            also=some_mask,
            equal=same_layers,
        )


def both_sides(seed, rows=5):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((2, rows, TOKENS, WIDTH))


def reference_hidden(student, teacher, mask):
    values = []
    for own, goal, real in zip(student, teacher, mask, strict=True):
        squares = [
            (x - y) ** 2
            for a, b, r in zip(own, goal, real, strict=True)
            if r
            for x, y in zip(a, b, strict=True)
        ]
        values.append(sum(squares) / len(squares) if squares else 0.0)
    return np.array(values)


def reference_pkd(student, teacher, mask):
    """Over pairs of layers, each `[rows, tokens, width]`."""
    values = np.zeros(len(mask))
    for own, goal in zip(student, teacher, strict=True):
        for i, real in enumerate(mask):
            if real.any():
                at = list(real).index(True)
                units = [side[i, at] / np.linalg.norm(side[i, at]) for side in (own, goal)]
                values[i] += ((units[0] - units[1]) ** 2).mean() / len(student)
    return values


MASK = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=bool)


@pytest.mark.parametrize("seed", range(3))
def test_hidden_states_agree_with_a_float64_reference(seed):
    student, teacher = both_sides(seed)
    own, goal = torch.tensor(student), torch.tensor(teacher)
    whole = np.ones_like(MASK)
    for mask in (MASK, whole):
        values = tinybert_hidden(own, goal, mask=torch.tensor(mask)).numpy()
        np.testing.assert_allclose(values, reference_hidden(student, teacher, mask), rtol=1e-12)
    mean = torch.nn.functional.mse_loss(own, goal)
    torch.testing.assert_close(tinybert_hidden(own, goal).mean(), mean)


@pytest.mark.parametrize("seed", range(3))
def test_class_tokens_agree_with_a_float64_reference(seed):
    sides = [both_sides(seed), both_sides(seed + 100)]
    student, teacher = ([side[i] for side in sides] for i in (0, 1))
    own, goal = ([torch.tensor(x) for x in side] for side in (student, teacher))
    values = pkd(own, goal, mask=torch.tensor(MASK)).numpy()
    np.testing.assert_allclose(values, reference_pkd(student, teacher, MASK), rtol=1e-12)
    whole = reference_pkd(student, teacher, np.ones_like(MASK))
    np.testing.assert_allclose(pkd(own, goal).numpy(), whole, rtol=1e-12)


def test_patience_is_the_mean_over_columns_and_over_layers_as_in_the_authors_code():
    student, teacher = (torch.tensor(side) for side in both_sides(4))
    # The authors stack the class tokens of all pairs, `[rows, pairs, width]`.
    stacked = [torch.nn.functional.normalize(side, dim=2) for side in (student, teacher)]
    expected = torch.nn.functional.mse_loss(*stacked)
    pairs = [[side[:, i : i + 1] for i in range(TOKENS)] for side in (student, teacher)]
    torch.testing.assert_close(pkd(*pairs).mean(), expected, rtol=1e-12, atol=0)


def test_states_as_they_are_where_they_are_not_normalised():
    student, teacher = (torch.tensor(side) for side in both_sides(5))
    expected = (student[:, 0] - teacher[:, 0]).square().mean(dim=1)
    torch.testing.assert_close(pkd([student], [teacher], normalize=False), expected)


def one_layer(student, teacher, **mask):
    return pkd([student], [teacher], **mask)


@pytest.mark.parametrize("loss", [tinybert_hidden, one_layer])
@pytest.mark.parametrize("wild", [1e30, torch.inf, torch.nan])
def test_padding_does_not_matter_at_all(loss, wild):
    mask = torch.tensor(MASK)
    own, goal = (torch.tensor(side) for side in both_sides(6))
    outcomes = []
    for filling in (0.0, wild):
        student, teacher = (s.masked_fill(~mask.unsqueeze(2), filling) for s in (own, goal))
        student.requires_grad_()
        values = loss(student, teacher, mask=mask)
        values.sum().backward()
        outcomes.append((values.detach(), student.grad))
    assert torch.equal(outcomes[1][0], outcomes[0][0])
    assert torch.equal(outcomes[1][1], outcomes[0][1])
    assert (outcomes[1][1][~mask] == 0).all()
    assert outcomes[1][0][3] == 0
    assert (outcomes[1][0][[0, 1, 2, 4]] > 0).all()


@pytest.mark.usefixtures("as_users_run_it")
def test_what_does_not_fit_is_refused():
    states = torch.zeros(2, 3, 4)
    law = r"must hold, but got student \(2, 3, 4\) and teacher \(2, 3, 5\)"
    with pytest.raises(ValueError, match=law):
        tinybert_hidden(states, torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match=law):
        pkd([states], [torch.zeros(2, 3, 5)])
    with pytest.raises(ValueError, match=r"must be \[batch, tokens, width\].* got \(2, 3\)"):
        tinybert_hidden(states[..., 0], states[..., 0])
    with pytest.raises(ValueError, match=r"got 2 layers of the student and 1 of the teacher"):
        pkd([states, states], [states])
    with pytest.raises(ValueError, match=r"got 0 layers of the student and 0 of the teacher"):
        pkd([], [])
    for mask in (torch.ones(2, 3), torch.ones(2, 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"`mask` must be bool \[batch, tokens\] = \(2, 3\)"):
            tinybert_hidden(states, states, mask=mask)


def test_it_prints_its_constant():
    assert str(PKD(normalize=False)) == "PKD(normalize=False)"
