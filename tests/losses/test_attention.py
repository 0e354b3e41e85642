"""Losses on attention: laws, references in plain loops, padding that does not matter."""

import math

import numpy as np
import pytest
import torch

from conformance.loss import LossCase, LossLaws
from understudy.losses.attention import (
    MiniLM,
    MiniLMv2,
    TinyBERTAttention,
    minilm,
    minilm_v2,
    tinybert_attention,
)

HEADS, TOKENS, DIM = 2, 4, 3


def other_scores(student, generator):
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


def other_parts(student, generator):
    """The teacher has more numbers per head."""
    return [
        2 * torch.randn(*p.shape[:3], p.shape[3] + 2, generator=generator).to(p.dtype)
        for p in student
    ]


def same_parts(student):
    return [part.clone() for part in student]


def some_mask(student, generator):
    first = student[0] if isinstance(student, list) else student
    lengths = torch.randint(2, 1 + max(2, first.shape[2]), (len(first), 1), generator=generator)
    return {"mask": torch.arange(first.shape[2]) < lengths}


class TestTinyBERTAttention(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=TinyBERTAttention(),
            target=other_scores,
            shape=(HEADS, TOKENS, TOKENS + 1),
            narrow=(1, 1, 1),
            equal=torch.clone,
        )


class TestTinyBERTAttentionWithPadding(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=TinyBERTAttention(floor=-1e6),
            target=other_scores,
            shape=(HEADS, TOKENS, TOKENS),
            narrow=(1, 1, 1),
            also=some_mask,
            equal=torch.clone,
        )


def relations(loss, also=None):
    return LossCase(
        loss=loss,
        target=other_parts,
        shape=[(HEADS, TOKENS, DIM)] * 3,
        narrow=[(1, 1, 1)] * 3,
        also=also,
        equal=same_parts,
    )


class TestMiniLM(LossLaws):
    @pytest.fixture
    def case(self):
        return relations(MiniLM())


class TestMiniLMWithPadding(LossLaws):
    @pytest.fixture
    def case(self):
        return relations(MiniLM(), some_mask)


class TestMiniLMv2(LossLaws):
    @pytest.fixture
    def case(self):
        return relations(MiniLMv2())


class TestMiniLMv2WithPadding(LossLaws):
    @pytest.fixture
    def case(self):
        return relations(MiniLMv2(), some_mask)


MASK = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=bool)
WHOLE = np.ones_like(MASK)


def both_sides(seed, rows=5):
    """Queries, keys and values of the student and of a wider teacher."""
    draw = np.random.default_rng(seed)
    student = 2 * draw.standard_normal((3, rows, HEADS, TOKENS, DIM))
    return student, 2 * draw.standard_normal((3, rows, HEADS, TOKENS, DIM + 2))


def tensors(side):
    return [torch.tensor(part) for part in side]


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def reference_relation(own, goal, mask):
    """Mean over heads and real queries of the divergence over real keys."""
    values = np.zeros(len(mask))
    for i, real in enumerate(mask):
        places = np.flatnonzero(real)
        found = []
        for h in range(HEADS):
            for q in places:
                chances = []
                for one, other in (own, goal):
                    keys = other[i, h, places]
                    chances.append(softmax(keys @ one[i, h, q] / math.sqrt(keys.shape[1])))
                found.append((chances[1] * np.log(chances[1] / chances[0])).sum())
        values[i] = np.mean(found) if found else 0.0
    return values


def reference_minilm(own, goal, mask):
    attention = reference_relation((own[0], own[1]), (goal[0], goal[1]), mask)
    return attention + reference_relation((own[2], own[2]), (goal[2], goal[2]), mask)


def reference_minilm_v2(own, goal, mask):
    return sum(reference_relation((o, o), (g, g), mask) for o, g in zip(own, goal, strict=True))


PAIRS = [(minilm, reference_minilm), (minilm_v2, reference_minilm_v2)]


@pytest.mark.parametrize("mask", [MASK, WHOLE])
@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_relations_agree_with_a_float64_reference(loss, reference, mask):
    student, teacher = both_sides(1)
    values = loss(tensors(student), tensors(teacher), mask=torch.tensor(mask)).numpy()
    np.testing.assert_allclose(values, reference(student, teacher, mask), rtol=1e-9)


@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_no_mask_is_a_mask_of_real_tokens(loss, reference):
    student, teacher = both_sides(2)
    values = loss(tensors(student), tensors(teacher)).numpy()
    np.testing.assert_allclose(values, reference(student, teacher, WHOLE), rtol=1e-9)


@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_relations_have_the_gradient_of_the_reference(loss, reference):
    student, teacher = both_sides(3, rows=2)
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], dtype=bool)
    own = torch.tensor(student, requires_grad=True)
    loss(list(own), tensors(teacher), mask=torch.tensor(mask)).mean().backward()
    expected = np.zeros_like(student)
    for at in np.ndindex(*student.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = student.copy()
            moved[at] += step
            ends.append(reference(moved, teacher, mask).mean())
        expected[at] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(own.grad.numpy(), expected, rtol=1e-5, atol=1e-8)


def reference_scores(student, teacher, mask):
    values = np.zeros(len(mask))
    for i, real in enumerate(mask):
        gaps = [
            (max(s, 0) - max(t, 0) if min(s, t) <= -100 else s - t) ** 2
            for h in range(HEADS)
            for q in np.flatnonzero(real)
            for k in np.flatnonzero(real)
            for s, t in [(student[i, h, q, k], teacher[i, h, q, k])]
        ]
        values[i] = np.mean(gaps) if gaps else 0.0
    return values


@pytest.mark.parametrize("mask", [MASK, WHOLE])
def test_scores_agree_with_a_float64_reference(mask):
    draw = np.random.default_rng(5)
    student, teacher = draw.standard_normal((2, 5, HEADS, TOKENS, TOKENS))
    # In both, as a model adds it to both; one of them infinite.
    student[:, :, :, 1], teacher[:, :, :, 1] = -10000, -np.inf
    own, goal = torch.tensor(student), torch.tensor(teacher)
    values = tinybert_attention(own, goal, mask=torch.tensor(mask)).numpy()
    np.testing.assert_allclose(values, reference_scores(student, teacher, mask), rtol=1e-12)


def test_without_a_mask_scores_of_padding_count_as_zeros_as_in_the_authors_code():
    own, goal = torch.randn(2, 3, HEADS, TOKENS, TOKENS, dtype=torch.float64)
    own[..., 3], goal[..., 3] = -10007.0, -10005.0
    zeroed = [torch.where(side <= -1e2, torch.zeros_like(side), side) for side in (own, goal)]
    expected = torch.nn.functional.mse_loss(*zeroed)
    torch.testing.assert_close(tinybert_attention(own, goal).mean(), expected)
    assert tinybert_attention(own, goal, floor=-1e5).mean() > expected


@pytest.mark.parametrize("loss", [minilm, minilm_v2])
@pytest.mark.parametrize("wild", [1e30, torch.inf, torch.nan])
def test_padding_does_not_matter_at_all_in_relations(loss, wild):
    mask = torch.tensor(MASK)
    shown = mask[:, None, :, None]
    outcomes = []
    for filling in (0.0, wild):
        sides = [
            [part.masked_fill(~shown, filling) for part in tensors(side)] for side in both_sides(6)
        ]
        student = [part.requires_grad_() for part in sides[0]]
        values = loss(student, sides[1], mask=mask)
        values.sum().backward()
        outcomes.append((values.detach(), torch.stack([part.grad for part in student])))
    assert torch.equal(outcomes[1][0], outcomes[0][0])
    assert torch.equal(outcomes[1][1], outcomes[0][1])
    assert (outcomes[1][1].movedim(3, 2)[:, ~mask] == 0).all()
    # One real token looks at itself, and none at nothing.
    assert (outcomes[1][0][[1, 3]] == 0).all()
    assert (outcomes[1][0][[0, 2, 4]] > 0).all()


@pytest.mark.parametrize("wild", [1e30, -1e30, torch.inf, -torch.inf, torch.nan])
def test_padding_does_not_matter_at_all_in_scores(wild):
    mask = torch.tensor(MASK)
    real = (mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(1)
    own, goal = torch.randn(2, 5, HEADS, TOKENS, TOKENS)
    outcomes = []
    for filling in (0.0, wild):
        student, teacher = (side.masked_fill(~real, filling) for side in (own, goal))
        student.requires_grad_()
        values = tinybert_attention(student, teacher, mask=mask)
        values.sum().backward()
        outcomes.append((values.detach(), student.grad))
    assert torch.equal(outcomes[1][0], outcomes[0][0])
    assert torch.equal(outcomes[1][1], outcomes[0][1])
    assert outcomes[1][0][3] == 0
    assert (outcomes[1][0][[0, 1, 2, 4]] > 0).all()


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("loss", [minilm, minilm_v2])
def test_parts_that_do_not_fit_are_refused(loss):
    part = torch.zeros(2, 3, 4, 5)
    parts = [part, part, part]
    with pytest.raises(ValueError, match=r"== 3` must hold, but got 3 and 2: give queries, keys"):
        loss(parts, parts[:2])
    with pytest.raises(ValueError, match=r"the teacher's queries \(2, 6, 4, 5\).* as many heads"):
        loss(parts, [torch.zeros(2, 6, 4, 5)] * 3)
    with pytest.raises(ValueError, match=r"the student's keys \(2, 3, 4, 6\)"):
        loss([part, torch.zeros(2, 3, 4, 6), part], parts)
    with pytest.raises(ValueError, match=r"must be \[batch, heads, tokens, dim\].* \(2, 3, 4\)"):
        loss([part[..., 0]] * 3, parts)
    with pytest.raises(ValueError, match=r"`mask` must be bool \[batch, tokens\] = \(2, 4\)"):
        loss(parts, parts, mask=torch.ones(2, 4))


@pytest.mark.usefixtures("as_users_run_it")
def test_scores_that_do_not_fit_are_refused():
    scores = torch.zeros(2, 3, 4, 5)
    law = r"must hold, but got student \(2, 3, 4, 5\) and teacher \(2, 6, 4, 5\)"
    with pytest.raises(ValueError, match=law):
        tinybert_attention(scores, torch.zeros(2, 6, 4, 5))
    with pytest.raises(ValueError, match=r"`queries == keys` must hold .* got \(2, 3, 4, 5\)"):
        tinybert_attention(scores, scores, mask=torch.ones(2, 5, dtype=torch.bool))
    for floor in (0.0, math.nan):
        with pytest.raises(ValueError, match=f"`floor < 0` must hold, but got floor={floor}"):
            TinyBERTAttention(floor=floor)


def test_it_prints_its_constant():
    assert str(TinyBERTAttention(floor=-50.0)) == "TinyBERTAttention(floor=-50.0)"
