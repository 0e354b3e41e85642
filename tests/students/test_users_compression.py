"""Compression of networks as users write them: zeros, branches, updates, factors, reused heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from understudy.errors import ModelError
from understudy.models import MLP
from understudy.pipeline.chain import sparsity
from understudy.students.lora import add_lora, merged, plan_lora
from understudy.students.low_rank import plan_low_rank
from understudy.students.regularised import with_stochastic_depth
from understudy.students.reused_head import reused_head
from understudy.students.sparse import Masks, Sparsity


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def moved(network, masks, steps=10):
    """One step of a training that moves all weights."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    masks.follow(network, step=0, steps=steps)
    return [float((layer.weight == 0).float().mean()) for layer in network]


def test_zeros_of_an_earlier_step_stay_in_every_layer():
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    first = Sparsity(to=0.5, schedule="once", scope="layer", layers=("*",))
    Masks(network, first).finish(network)
    held = Masks(network, sparsity(None, pruned=True))
    assert moved(network, held) == [0.5, 0.5, 0.5]
    again = Sparsity(to=0.75, schedule="once", scope="layer", layers=("1",), hold=True)
    masks = Masks(network, again)
    assert moved(network, masks) == [0.5, 0.75, 0.5]
    other = Masks(network, Sparsity(to=0.75, schedule="once", scope="layer", layers=("1",)))
    assert moved(network, other) == [0.0, 0.75, 0.0]
    assert other.share() == 0.75 == masks.share()


class Activated(nn.Module):
    """One activation for inside and behind the sum."""

    def __init__(self, act, *, last):
        super().__init__()
        self.a, self.b, self.act, self.last = nn.Linear(16, 16), nn.Linear(16, 16), act, last

    def forward(self, x):
        made = self.b(self.act(self.a(x)))
        return self.act(x + (self.act(made) if self.last else made))


@pytest.mark.parametrize("last", [False, True])
def test_a_shared_activation_is_not_dropped_with_the_branch_that_it_ends(last):
    act = nn.ReLU()
    network = nn.Sequential(
        nn.Linear(8, 16), Activated(act, last=last), Activated(act, last=last), nn.Linear(16, 4)
    )
    rows = draw(4000, 8)
    student = with_stochastic_depth(network, rows[:2], 0.5, mode="uniform").train()
    torch.manual_seed(0)
    told = student(rows)
    nothing = network[-1].bias
    assert float((told == nothing).all(1).float().mean()) < 0.02
    # A row without any branch is what goes around them.
    bare = network[-1](act(network[0](rows)))
    assert 0.2 < float(torch.isclose(told, bare, atol=1e-6).all(1).float().mean()) < 0.35


def test_a_shared_activation_that_cannot_be_gone_around_is_said():
    act = nn.Sigmoid()
    network = nn.Sequential(nn.Linear(8, 16), Activated(act, last=True), nn.Linear(16, 4))
    with pytest.raises(ModelError, match="runs elsewhere too"):
        with_stochastic_depth(network, draw(4, 8), 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "dilation": 2},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": 2, "dilation": 2},
        {"padding": 1},
    ],
    ids=str,
)
def test_a_convolution_that_peft_would_compute_otherwise_learns_no_update(options):
    pytest.importorskip("peft")
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, **options),
        nn.Conv2d(16, 16, 3, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    rows = draw(2, 3, 12, 12)
    plan = plan_lora(network, rows, rank=2)
    assert ("1" in plan.ranks) == (options == {"padding": 1})
    assert "2" in plan.ranks
    module = add_lora(network, plan).module.eval()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    assert torch.allclose(module(rows), merged(module)(rows), atol=1e-4)


class Asking(nn.Module):
    """Asks its layers for their classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(8, 32), nn.LayerNorm(32), nn.Linear(32, 32), nn.Linear(32, 32)]
        )
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                x = F.relu(x)
        return self.head(x)


def test_a_network_that_asks_for_classes_of_layers_is_refused():
    network, rows = Asking().eval(), draw(64, 8)
    for plan in (plan_low_rank, plan_lora):
        with pytest.raises(ModelError, match="asked for their classes"):
            plan(network, rows, **({"energy": 0.9} if plan is plan_low_rank else {}))


def test_a_network_that_draws_numbers_at_rest_is_not_refused_for_that():
    class Noisy(nn.Sequential):
        def forward(self, x):
            return super().forward(x + 0.1 * torch.randn_like(x))

    network = Noisy(nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 2)).eval()
    assert plan_low_rank(network, draw(64, 8), energy=0.5).ranks


def test_planning_does_not_move_the_vectors_of_a_spectral_norm():
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), spectral_norm(nn.Conv2d(16, 16, 3)), nn.Conv2d(16, 16, 3),
        nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plan_low_rank(network, draw(8, 3, 8, 8), energy=0.5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Text(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, width), nn.Linear(width, 3)

    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))


def test_a_reused_head_has_the_students_numbers():
    ids = torch.randint(0, 50, (2, 5), generator=torch.Generator().manual_seed(0))
    student = reused_head(Text(8), Text(16).bfloat16(), ids, seed=0).module
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    small, large = (MLP(inputs=6, width=3, hidden=[width]).double() for width in (4, 9))
    made = reused_head(small, large, torch.zeros(2, 6).double(), seed=0).module
    assert {p.dtype for p in made.parameters()} == {torch.float64}
