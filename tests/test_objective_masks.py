"""Padding is no token: what a term says of a text does not depend on its row's length."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from understudy import losses
from understudy.contracts import Batch, Knowledge
from understudy.errors import ModelError
from understudy.features.adapters import ADAPTERS
from understudy.features.words import Words
from understudy.objective import Objective, Pair, Term
from understudy.tasks import Classification

TASK = Classification(classes=("no", "yes"))
LENGTHS = [5, 2, 4, 0]
WIDTH, HEADS, PAD = 6, 2, 0


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled_up(length, seed):
    """Rows of the same tokens and features, filled up to a length with whatever is there."""
    ids = torch.zeros(len(LENGTHS), length, dtype=torch.int64)
    features = 100 * drawn(len(LENGTHS), length, WIDTH, seed=seed + length)
    known = drawn(len(LENGTHS), 5, WIDTH, seed=seed)
    for row, size in enumerate(LENGTHS):
        ids[row, :size] = 7
        features[row, : min(size, length)] = known[row, : min(size, length)]
    return ids, features


def term(kind, shapes, **settings):
    row = losses.CATALOGUE[kind]
    count = 3 if row.adapter == "heads" else 1
    pairs = tuple(Pair(student=f"s{n}", teacher=f"t{n}") for n in range(count))
    known = dict(row.settings)
    if row.adapter == "heads":
        known |= {"student_heads": HEADS, "teacher_heads": HEADS, "fused": False}
    name = settings.pop("adapter", row.adapter)
    known |= settings
    made = ADAPTERS[name]([shapes[0]] * count, [shapes[1]] * count, **known) if name else None
    return Term(
        name=kind,
        loss=row.loss(),
        reads="features",
        needs=("features",),
        pairs=pairs,
        together=row.layers == "all",
        adapter=None if made is None else made.double(),
    )


def value(one, length, *, pad=PAD, rows=slice(None), teacher_width=WIDTH):
    """The term's mean over some rows that are filled up to a length, with its gradient."""
    own, goal = {}, {}
    for number in range(len(one.pairs)):
        ids, mine = filled_up(length, seed=100 * number)
        _, theirs = filled_up(length, seed=100 * number + 50)
        own[f"s{number}"] = mine[rows].clone().requires_grad_()
        goal[f"t{number}"] = theirs[rows, :, :teacher_width]
    batch = Batch(inputs=ids[rows])
    offers = frozenset(goal)
    objective = Objective([one], task=TASK, offers=offers, pad=pad)
    told = Knowledge(fields=goal)
    answers = torch.zeros(len(batch), 2, dtype=torch.float64)
    mean = objective.means(answers, told, batch, epoch=0.0, epochs=1, features=own)[one.name]
    if mean.requires_grad:
        mean.backward()
    return mean.detach(), own["s0"].grad


SHAPES = ((9, WIDTH), (9, WIDTH))
TERMS = ["tinybert_hidden", "tinybert_attention", "minilm", "minilm_v2", "pkd", "hint"]


@pytest.mark.parametrize("kind", TERMS)
def test_more_padding_changes_nothing(kind):
    values = []
    for length in (5, 9, 16):
        one = term(kind, ((length, WIDTH), (length, WIDTH)))
        found, slope = value(one, length)
        assert bool((slope[:, 5:] == 0).all())
        for row, size in enumerate(LENGTHS):
            assert bool((slope[row, size:] == 0).all())
        values.append((found, slope[:, :5]))
    for found, slope in values[1:]:
        assert torch.allclose(found, values[0][0], atol=1e-12, rtol=0)
        assert torch.allclose(slope, values[0][1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", TERMS)
def test_a_row_is_what_it_is_alone_and_unpadded(kind):
    lone = [
        value(term(kind, ((size, WIDTH), (size, WIDTH))), size, rows=slice(row, row + 1))
        for row, size in enumerate(LENGTHS[:3])
    ]
    together, _ = value(term(kind, SHAPES), 9, rows=slice(0, 3))
    assert torch.allclose(together, torch.stack([one for one, _ in lone]).mean())
    if kind == "pkd":  # of the first token alone
        return
    # Without the id of padding, all of it counts.
    without, _ = value(term(kind, SHAPES), 9, rows=slice(0, 3), pad=None)
    assert not torch.allclose(together, without)


def test_a_mean_over_a_row_is_that_of_its_tokens():
    _, mine = filled_up(9, seed=0)
    found, _ = value(term("tinybert_hidden", SHAPES), 9)
    _, theirs = filled_up(9, seed=50)
    rows = [
        sum((mine[r, t] - theirs[r, t]).square().mean() for t in range(n)) / n
        for r, n in enumerate(LENGTHS[:3])
    ]
    assert torch.allclose(found, sum(rows) / 4)


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [("pkt", "flat"), ("cka", "flat"), ("correlation_congruence", "embed"), ("hint", "flat")],
)
def test_relations_and_means_see_real_tokens_alone(kind, adapter):
    values = []
    for length in (5, 9):
        torch.manual_seed(0)
        one = term(kind, ((length, WIDTH), (length, WIDTH)), adapter=adapter)
        values.append(value(one, length, rows=slice(0, 3)))
    assert torch.allclose(values[0][0], values[1][0], atol=1e-12, rtol=0)
    assert bool((values[1][1][:, 5:] == 0).all())


def test_a_teachers_vector_is_met_by_the_mean_of_real_tokens():
    from understudy.features.matching import Match

    ids, own = filled_up(9, seed=0)
    torch.manual_seed(0)
    for settings in ({}, {"projector": "attention"}):
        match = Match([(9, WIDTH)], [(3,)], **settings).double()
        batch = Batch(inputs=ids, real=ids != PAD)
        other = torch.where(batch.real.unsqueeze(2), own, torch.nan)
        goal = drawn(4, 3)
        found = [match([x], [goal], batch).student[0] for x in (own, other)]
        assert torch.equal(*found)
        assert bool(found[1].isfinite().all())


@pytest.mark.parametrize("kind", ["vid", "nst", "similarity_preserving"])
def test_a_term_that_would_count_padding_is_refused(kind):
    with pytest.raises(ModelError, match=f"`{kind}` would count padding as tokens"):
        value(term(kind, SHAPES), 9)
    value(term(kind, SHAPES), 9, pad=None)


def test_images_and_numbers_have_no_padding():
    one = term("hint", ((3, 4, 4), (3, 4, 4)))
    own = {"s0": drawn(2, 3, 4, 4)}
    told = Knowledge(fields={"t0": drawn(2, 3, 4, 4, seed=1)})
    for inputs in (torch.zeros(2, 4), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)):
        objective = Objective([one], task=TASK, offers=frozenset(["t0"]), pad=0)
        answers = torch.zeros(2, 2, dtype=torch.float64)
        given = {"epoch": 0.0, "epochs": 1, "features": own}
        found = objective.means(answers, told, Batch(inputs=inputs), **given)
        assert torch.allclose(found["hint"], (own["s0"] - told["t0"]).square().mean())


def test_an_adapter_of_words_says_itself_which_of_them_count():
    own_words = torch.tensor([[0, 0, 1, -1], [0, -1, -1, -1]])
    their_words = torch.tensor([[0, 1, 1], [0, 0, -1]])
    words = Words([(4, 2)], [(3, 2)], ids=torch.tensor([5, 9]), student_words=own_words,
                  teacher_words=their_words)  # fmt: skip
    one = replace(term("tinybert_hidden", ((4, 2), (4, 2))), adapter=words)
    own, goal = drawn(2, 4, 2), drawn(2, 3, 2, seed=1)
    objective = Objective([one], task=TASK, offers=frozenset(["t0"]), pad=PAD)
    batch = Batch(inputs=torch.ones(2, 4, dtype=torch.int64), ids=torch.tensor([5, 9]))
    answers = torch.zeros(2, 2, dtype=torch.float64)
    found = objective.means(answers, Knowledge(fields={"t0": goal}), batch, epoch=0.0, epochs=1,
                            features={"s0": own})["tinybert_hidden"]  # fmt: skip
    first = (own[0, :2].mean(0) - goal[0, 0]).square().mean()
    second = (own[0, 2] - goal[0, 1:].mean(0)).square().mean()
    alone = (own[1, 0] - goal[1, :2].mean(0)).square().mean()
    assert torch.allclose(found, ((first + second) / 2 + alone) / 2)


def test_a_loss_of_ones_own_is_masked_where_it_can_be():
    class Own(nn.Module):
        def forward(self, student, teacher, *, mask=None):
            gap = (student - teacher).square().mean(dim=2)
            return torch.where(mask, gap, 0.0).sum(dim=1)

    one = replace(term("tinybert_hidden", SHAPES), loss=Own())
    assert torch.allclose(value(one, 9)[0], value(one, 16)[0])
