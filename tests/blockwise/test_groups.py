"""Classes divided into groups."""

from itertools import combinations

import numpy as np
import pytest
import torch

from blockwise.clan import HEAPS, clan
from understudy.blockwise.groups import divided, grouped, likeness, within
from understudy.errors import DataError, ModelError


def blocks(sizes, noise=1.0, rows=200, seed=0):
    """Random logits in the place of answers, alike within runs of classes of these sizes."""
    draws = torch.Generator().manual_seed(seed)
    common = [torch.randn(rows, 1, generator=draws).expand(rows, size) for size in sizes]
    return torch.cat(common, dim=1) + noise * torch.randn(rows, sum(sizes), generator=draws)


@pytest.mark.parametrize(("classes", "count"), [(6, 2), (7, 3), (10, 3), (12, 3), (100, 7)])
def test_groups_divide_the_classes_evenly(classes, count):
    found = grouped(blocks([classes], noise=2.0), count)
    assert len(found) == count
    assert sorted(one for group in found for one in group) == list(range(classes))
    sizes = [len(group) for group in found]
    assert max(sizes) - min(sizes) <= 1
    assert all(group == tuple(sorted(group)) for group in found)


def test_like_classes_are_found_whatever_their_order():
    answers = blocks([3, 3, 3], noise=0.5)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    found = grouped(answers[:, order], 3)
    original = {tuple(sorted(order[list(group)].tolist())) for group in found}
    assert original == {(0, 1, 2), (3, 4, 5), (6, 7, 8)}


@pytest.mark.parametrize("seed", range(5))
def test_no_exchange_of_two_classes_is_better_and_the_best_is_near(seed):
    alike = likeness(blocks([4, 2, 2], noise=1.5, seed=seed))
    found = grouped(blocks([4, 2, 2], noise=1.5, seed=seed), 2)
    own = within(alike, found)
    for one in found[0]:
        for other in found[1]:
            changed = [
                [other if c == one else c for c in found[0]],
                [one if c == other else c for c in found[1]],
            ]
            assert within(alike, changed) <= own + 1e-9
    every = [
        within(alike, [first, [c for c in range(8) if c not in first]])
        for first in combinations(range(8), 4)
    ]
    assert own >= max(every) - 0.05 * abs(max(every))


def test_the_groups_of_a_trained_network_are_its_heaps(tmp_path):
    ground = clan(tmp_path)
    with torch.no_grad():
        assert grouped(ground.network(ground.inputs), 2) == HEAPS


def test_likeness_is_a_correlation():
    answers = torch.randn(50, 5, dtype=torch.float64)
    table = (answers - answers.mean(dim=1, keepdim=True)).numpy()
    assert np.allclose(likeness(answers), np.corrcoef(table.T))
    # A class whose logit is always the row's mean says nothing.
    answers[:, 2] = answers[:, [0, 1, 3, 4]].mean(dim=1)
    found = likeness(answers)
    assert np.allclose(np.delete(found[2], 2), 0, atol=1e-6)
    assert found[2, 2] == 1


@pytest.mark.parametrize(
    ("groups", "law"),
    [
        ([[0, 1], [2, 3], [3, 4]], r"in two groups: \[3\]; in none: \[5\]"),
        ([[0, 1, 2], [3, 4, 7]], r"not classes: \[7\]; in none: \[5\]"),
        ([[0, 1, 2, 3, 4], [5]], "two classes or more"),
        ([[0, 1, 2, 3, 4, 5]], "two groups or more"),
    ],
)
def test_what_is_no_division_is_refused(groups, law):
    with pytest.raises(ModelError, match=law):
        divided(groups, 6)


def test_what_cannot_be_grouped_is_refused():
    with pytest.raises(ModelError, match="got count=4 and 6 classes"):
        grouped(torch.randn(9, 6), 4)
    with pytest.raises(DataError, match="three rows"):
        grouped(torch.randn(2, 6), 2)
    with pytest.raises(DataError, match="finite"):
        grouped(torch.full((5, 6), float("nan")), 2)
