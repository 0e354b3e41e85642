"""A router and specialists as one model."""

import numpy as np
import pytest
import torch
from torch import nn

from understudy.blockwise.routed import Routed, routed_costs, shares_of
from understudy.deployed import Deployed
from understudy.errors import DataError, ModelError
from understudy.export.onnx import export_onnx

GROUPS = ((3, 0), (1, 4, 2))


class Told(nn.Module):
    """A router that is sure of the group that the first column of a row names."""

    def forward(self, rows):
        first = rows[:, :1] < 0
        mark = torch.tensor([1.0, 0, 0, 1, 0])
        return 200.0 * torch.where(first, mark, 1 - mark)


def parts(seed=0):
    """Random layers in the place of students."""
    torch.manual_seed(seed)
    return nn.Linear(4, 5), [nn.Linear(4, 2), nn.Linear(4, 3)]


@pytest.fixture
def rows():
    return torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


def test_the_mixture_is_a_distribution_made_of_both(rows):
    router, two = parts()
    routed = Routed(router, two, GROUPS)
    with torch.no_grad():
        made = routed(rows).exp()
        told = router(rows).softmax(1)
        assert torch.allclose(made.sum(dim=1), torch.ones(40), atol=1e-6)
        for group, specialist in zip(GROUPS, two, strict=True):
            mass = told[:, list(group)].sum(dim=1, keepdim=True)
            assert torch.allclose(made[:, list(group)], mass * specialist(rows).softmax(1))


def test_a_perfect_router_gives_the_specialist_alone(rows):
    _, two = parts()
    routed = Routed(Told(), two, GROUPS)
    with torch.no_grad():
        for answers in (routed(rows), routed.hard(rows)):
            for number, group in enumerate(GROUPS):
                own = (rows[:, 0] < 0) == (number == 0)
                alone = two[number](rows[own]).log_softmax(1)
                assert torch.allclose(answers[own][:, list(group)], alone, atol=1e-5)
                others = [one for one in range(5) if one not in group]
                assert (answers[own][:, others].exp() < 1e-6).all()


def test_hard_routing_runs_one_specialist_per_row(rows):
    router, two = parts()
    routed = Routed(router, two, GROUPS)
    seen = []
    hooks = [one.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
             for one in two]  # fmt: skip
    with torch.no_grad():
        hard = routed.hard(rows)
        assert sum(seen) == len(rows)
        for hook in hooks:
            hook.remove()
        chosen, soft, told = routed.chosen(rows), routed(rows), router(rows).log_softmax(1)
    assert seen == torch.bincount(chosen, minlength=2).tolist()
    assert torch.allclose(hard.exp().sum(dim=1), torch.ones(40), atol=1e-6)
    for row in range(40):
        group = list(GROUPS[chosen[row]])
        others = list(GROUPS[1 - chosen[row]])
        assert torch.allclose(hard[row, group], soft[row, group], atol=1e-6)
        assert torch.allclose(hard[row, others], told[row, others], atol=1e-6)


def test_a_specialist_that_no_row_needs_does_not_run():
    _, two = parts()
    two[1].register_forward_hook(lambda *_: pytest.fail("it ran"))
    rows = -torch.rand(6, 4)
    with torch.no_grad():
        assert Routed(Told(), two, GROUPS).hard(rows).shape == (6, 5)


def test_specialists_of_the_routers_own_opinion_change_nothing(rows):
    router, _ = parts()

    class Own(nn.Module):
        def __init__(self, group):
            super().__init__()
            self.group = list(group)

        def forward(self, given):
            return router(given)[:, self.group]

    routed = Routed(router, [Own(group) for group in GROUPS], GROUPS)
    with torch.no_grad():
        told = router(rows).log_softmax(1)
        assert torch.allclose(routed(rows), told, atol=1e-5)
        assert torch.allclose(routed.hard(rows), told, atol=1e-5)


def test_the_mixture_learns_and_is_exported(rows, tmp_path):
    router, two = parts()
    routed = Routed(router, two, GROUPS)
    routed(rows).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in routed.parameters())
    path = export_onnx(routed.eval(), rows[:2], tmp_path / "routed.onnx", metadata={})
    made = Deployed.open(path).predict(rows.numpy())
    with torch.no_grad():
        assert np.allclose(made, routed(rows).numpy(), atol=1e-5)


def test_shares_are_counted_at_rest(rows):
    router, two = parts()
    routed = Routed(nn.Sequential(router, nn.Dropout(0.9)), two, GROUPS).train()
    with torch.no_grad():
        wanted = torch.bincount(Routed(router, two, GROUPS).chosen(rows), minlength=2) / 40
    assert shares_of(routed, rows, batch_size=7) == pytest.approx(wanted.tolist())
    assert routed.training
    with pytest.raises(DataError, match="got none"):
        shares_of(routed, rows[:0])


def test_what_does_not_belong_together_is_refused(rows):
    router, two = parts()
    with pytest.raises(ModelError, match="got 1 for 2 groups"):
        Routed(router, two[:1], GROUPS)
    with pytest.raises(ModelError, match="in two groups"):
        Routed(router, two, ((0, 1), (1, 2, 3)))
    with pytest.raises(ModelError, match="2 numbers per row"):
        Routed(router, two[::-1], GROUPS)(rows)


def test_costs_are_expected_worst_and_total():
    router = {"ms": 1.0, "flops": 10, "bytes": 100, "parameters": 25}
    two = [
        {"ms": 2.0, "flops": 30, "bytes": 200, "parameters": 50},
        {"ms": 4.0, "flops": 20, "bytes": 300, "parameters": 75, "memory": 9},
    ]
    found = routed_costs(router, two, [0.75, 0.25])
    assert found.total == {"bytes": 600.0, "parameters": 150.0}
    assert found.expected == {"ms": 3.5, "flops": 37.5}
    assert found.worst == {"ms": 5.0, "flops": 40.0}
    assert found.soft == {"ms": 7.0, "flops": 60.0}
    assert routed_costs(router, two).expected == {"ms": 4.0, "flops": 35.0}
    assert "ms" not in routed_costs({"flops": 1}, two).expected
    for shares in ([0.5], [0.5, 0.6]):
        with pytest.raises(ModelError, match="sum to 1"):
            routed_costs(router, two, shares)
