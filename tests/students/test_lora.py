"""Low-rank updates beside frozen weights: nothing at the start, exact when merged."""

import json

import pytest
import torch
from torch import nn

from students.depth_cases import CASES, answer, lively
from understudy.errors import ModelError
from understudy.models.gpt import GPT
from understudy.students.depth import cut_depth, plan_depth
from understudy.students.lora import LoraPlan, add_lora, has_lora, merged, plan_lora
from understudy.students.planning import plan_table

pytest.importorskip("peft")
WORDS = torch.randint(1, 40, (3, 6), generator=torch.Generator().manual_seed(0))
NETWORKS = {name: CASES[name] for name in ("resnet_b", "vit", "bert", "gpt2")} | {
    "gpt": (lambda: GPT(vocabulary=40, context=8, dim=16, depth=3, heads=2, kv_heads=1), WORDS)
}


def stirred(module):
    """Updates that do something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=generator)
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_updates_are_nothing_at_the_start_alone_in_learning_and_exact_when_merged(name):
    make, rows = NETWORKS[name]
    network = lively(make())
    whole, before = answer(network, rows), network.state_dict()
    plan = plan_lora(network, rows, rank=2, alpha=6)
    module = add_lora(network, plan, seed=1).module
    assert torch.equal(answer(module, rows), whole)
    learning = {n: p.numel() for n, p in module.named_parameters() if p.requires_grad}
    assert all("lora_" in one for one in learning)
    assert sum(learning.values()) == plan.trained < plan.parameters
    assert len(learning) == 2 * len(plan.ranks)
    told, one = answer(stirred(module), rows), merged(module)
    assert not torch.allclose(told, whole, atol=1e-3)
    torch.testing.assert_close(answer(one, rows), told, rtol=1e-9, atol=1e-9)
    assert list(one.state_dict()) == list(before)
    assert has_lora(module)
    assert not has_lora(one)
    # What was merged is W + alpha / rank * B A; all else is as it was.
    for key, value in one.state_dict().items():
        path = key.rpartition(".")[0]
        if path in plan.ranks and key.endswith("weight"):
            layer = module.get_submodule(path)
            delta = (
                3
                * layer.lora_B["default"].weight.flatten(1)
                @ (layer.lora_A["default"].weight.flatten(1))
            )
            delta = delta.T if type(layer.get_base_layer()).__name__ == "Conv1D" else delta
            torch.testing.assert_close(value, before[key] + delta.reshape(value.shape))
        else:
            assert torch.equal(value, before[key]), key
    assert torch.equal(answer(network, rows), whole)


def test_only_updates_move_after_a_depth_cut_and_provenance_stays():
    torch.manual_seed(0)
    network = GPT(vocabulary=40, context=8, dim=16, depth=4, heads=2).double()
    small = cut_depth(network, plan_depth(network, WORDS, keep=2), WORDS)
    plan = plan_lora(small.module, WORDS, rank=2, layers=("blocks.*.attention.*",))
    layers = ("query", "key", "value", "proj")
    assert list(plan.ranks) == [f"blocks.{n}.attention.{one}" for n in (0, 1) for one in layers]
    student = add_lora(small.module, plan, seed=3)
    assert student.provenance == {"blocks.0": "blocks.0", "blocks.1": "blocks.1"}
    before = {n: p.clone() for n, p in student.module.named_parameters()}
    optimizer = torch.optim.SGD([p for p in student.module.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        student.module(WORDS).logsumexp(-1).mean().backward()
        optimizer.step()
    moved = {n for n, p in student.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if "lora_" in n}
    table = plan_table(network, student.module, WORDS, provenance=small.provenance)
    assert table.trained == plan.trained
    assert table.parameters[1] == sum(p.numel() for p in small.module.parameters())
    assert (
        table.lines()[-1] == f"{plan.trained:,} numbers are trained; all other weights are frozen"
    )


def test_a_plan_survives_json_and_a_seed_gives_the_same_updates():
    make, rows = NETWORKS["vit"]
    network, state = lively(make()), torch.get_rng_state()
    plan = plan_lora(network, rows, rank=3)
    again = LoraPlan.from_data(json.loads(json.dumps(plan.to_data())))
    assert again == plan
    one, two, other = (
        add_lora(network, p, seed=s).module.state_dict()
        for p, s in ((plan, 5), (again, 5), (plan, 6))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
    assert f"{plan.trained:,} numbers are trained" in plan.lines()[0]
    with pytest.raises(ModelError, match="no plan of low-rank updates"):
        LoraPlan.from_data({"kind": "low_rank"})


def test_a_small_head_that_is_named_learns_in_full():
    network = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    plan = plan_lora(network, torch.randn(2, 20).double(), rank=4, layers=("*",))
    assert dict(plan.ranks) == {"0": 4, "2": 3}
    module = stirred(add_lora(network, plan).module)
    delta = merged(module)[2].weight - network[2].weight
    assert int(torch.linalg.matrix_rank(delta)) == 3


def test_what_is_tied_or_read_stays_and_says_why():
    network = NETWORKS["gpt2"][0]()
    plan = plan_lora(network, WORDS, rank=2, layers=("*",))
    assert "tied" in plan.left["lm_head"]
    assert network.lm_head.weight is network.transformer.wte.weight
    one = merged(stirred(add_lora(network, plan).module))
    assert one.lm_head.weight is one.transformer.wte.weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "`rank >= 1` and `alpha > 0`"),
        ({"alpha": -1.0}, "`rank >= 1` and `alpha > 0`"),
        ({"layers": ("blocks.*.attn",)}, r"names `blocks\.\*\.attn`, but no nn.Linear"),
        ({"rank": 64}, "must have fewer numbers than their 16 layers, but at rank 64"),
        ({"layers": ("head",)}, "fewer numbers than their 1 layers"),
    ],
)
def test_updates_that_make_no_sense_are_refused(options, message):
    make, rows = CASES["vit"]
    with pytest.raises(ModelError, match=message):
        plan_lora(make().double(), rows, **options)


def test_networks_without_a_layer_and_foreign_plans_are_refused():
    with pytest.raises(ModelError, match="no layer to learn an update"):
        plan_lora(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.zeros(2, 4))
    make, rows = CASES["vit"]
    plan = plan_lora(make().double(), rows, rank=2)
    with pytest.raises(ModelError, match="no such layer of that rank: make the plan from it"):
        add_lora(nn.Linear(3, 3), plan)


def test_an_update_that_is_not_finite_is_not_merged():
    network = nn.Sequential(*(nn.Linear(9, 9) for _ in range(3)))
    module = add_lora(network, plan_lora(network, torch.zeros(2, 9), rank=1)).module
    with torch.no_grad():
        module[1].lora_B["default"].weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="update of `1` is not finite"):
        merged(module)


class Noisy(nn.Module):
    """Reads its layer's weight while it learns, and asks the layer otherwise."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 9)
        self.last = nn.Linear(9, 3)

    def forward(self, rows):
        made = self.a(rows)
        noise = 0.1 * torch.randn_like(self.b.weight)
        made = nn.functional.linear(made, self.b.weight + noise) if self.training else self.b(made)
        return self.last(self.c(made))


def test_a_layer_whose_weight_is_read_only_in_training_is_left_alone():
    plan = plan_lora(Noisy(), torch.randn(2, 9), rank=1)
    assert list(plan.ranks) == ["c"]
    assert plan.left == {"b": "as the module around it reads its `weight`"}


def test_updates_are_not_put_on_updates():
    network = nn.Sequential(*(nn.Linear(9, 9) for _ in range(3)))
    module = add_lora(network, plan_lora(network, torch.zeros(2, 9), rank=1)).module
    with pytest.raises(ModelError, match="has updates of low rank already"):
        plan_lora(module, torch.zeros(2, 9), rank=1)


def test_what_peft_does_not_take_is_refused_in_our_words():
    t = pytest.importorskip("transformers")
    config = t.MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=2)
    network = t.MambaForCausalLM(config).eval()
    ranks = {"backbone.layers.0.mixer.out_proj": 1}
    plan = LoraPlan(ranks=ranks, scale=1.0, parameters=1, trained=1)
    with pytest.raises(ModelError, match=r"peft puts no updates .* choose others with `layers`"):
        add_lora(network, plan)
