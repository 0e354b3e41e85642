"""Layers cut to low rank."""

import json

import pytest
import torch
from torch import nn

from conformance.student import StudentCase, StudentLaws
from understudy.deployed import Deployed
from understudy.errors import ModelError
from understudy.evaluate.cost import parameters
from understudy.export.onnx import export_onnx
from understudy.models import MLP, CifarResNet, VisionTransformer
from understudy.students.low_rank.cutting import (
    LowRankPlan,
    cut_low_rank,
    frame_low_rank,
    plan_low_rank,
)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def resnet():
    return seeded(lambda: CifarResNet(channels=3, width=5, depth=8, base=8))


def vit():
    size = {"channels": 1, "height": 8, "image_width": 8, "width": 5}
    return seeded(lambda: VisionTransformer(patch=4, dim=24, depth=2, heads=2, **size))


def mlp():
    return seeded(lambda: MLP(inputs=12, width=3, hidden=[40, 30, 20]))


def sandwich(inputs, outputs):
    """One layer to cut between two that are protected."""
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(9, inputs), nn.Linear(inputs, outputs), nn.Linear(outputs, 4)
        )
    ).double()


def by_hand(ranks, *, aware=True):
    return LowRankPlan(
        ranks=ranks,
        energy=dict.fromkeys(ranks, 1.0),
        aware=aware,
        parameters_before=0,
        parameters_after=0,
    )


NETWORKS = {"resnet": (resnet, (6, 3, 8, 8)), "vit": (vit, (6, 1, 8, 8)), "mlp": (mlp, (6, 12))}


class TestLaws(StudentLaws):
    @pytest.fixture(params=list(NETWORKS))
    def case(self, request):
        make, shape = NETWORKS[request.param]
        fed = rows(*shape)

        def cut(seed):
            network = make()
            return cut_low_rank(network, plan_low_rank(network, fed, energy=0.8), fed)

        parent = frozenset(name for name, _ in make().named_modules())
        return StudentCase(make=cut, rows=fed, width=5 if len(shape) > 2 else 3, parent=parent)


@pytest.mark.parametrize("aware", [True, False])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_full_rank_answers_the_same(name, aware):
    make, shape = NETWORKS[name]
    network = make().double()
    wanted = [
        (path, part)
        for path, part in network.named_modules()
        if isinstance(part, (nn.Linear, nn.Conv2d))
    ]
    ranks = {path: min(part.weight.shape[0], part.weight[0].numel()) for path, part in wanted}
    student = cut_low_rank(network, by_hand(ranks, aware=aware), rows(3, *shape[1:]).double())
    fresh = rows(*shape, seed=5).double()
    torch.testing.assert_close(student.module(fresh), network(fresh), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("inputs", "outputs"), [(20, 14), (14, 20), (16, 16)])
@pytest.mark.parametrize("rank", [1, 5, 9])
def test_no_layer_of_its_rank_answers_the_rows_better(inputs, outputs, rank):
    """Eckart-Young on the answers: the error is the sum of the squares that are left out."""
    network, fed = sandwich(inputs, outputs), rows(200, 9).double()
    # All directions of the inputs must be shown, though the rows have nine.
    network[0] = nn.Sequential(network[0], nn.Tanh())
    with torch.no_grad():
        given = network[0](fed)
        exact = given @ network[1].weight.T
    student = cut_low_rank(network, by_hand({"1": rank}), fed).module
    error = (student[1](given) - network[1](given)).square().sum()
    best = torch.linalg.svdvals(exact)[rank:].square().sum()
    torch.testing.assert_close(error, best, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("inputs", "outputs"), [(20, 14), (14, 20)])
def test_unaware_is_the_truncated_decomposition_of_the_weight(inputs, outputs):
    network = sandwich(inputs, outputs)
    student = cut_low_rank(network, by_hand({"1": 4}, aware=False), torch.zeros(1, 9)).module
    product = student[1][1].weight @ student[1][0].weight
    left, values, right = torch.linalg.svd(network[1].weight)
    expected = (left[:, :4] * values[:4]) @ right[:4]
    torch.testing.assert_close(product, expected)


def test_a_convolution_answers_the_rows_best_too():
    network, fed = resnet().double(), rows(8, 3, 8, 8).double()
    path, given = "stages.0.0.conv1", []
    layer = network.get_submodule(path)
    hook = layer.register_forward_hook(lambda m, args, made: given.append((args[0], made)))
    network(fed)
    hook.remove()
    ((before, made),) = given
    answers = made.movedim(1, -1).reshape(-1, made.shape[1])
    student = cut_low_rank(network, by_hand({path: 3}), fed).module
    error = (student.get_submodule(path)(before) - made).square().sum()
    torch.testing.assert_close(error, torch.linalg.svdvals(answers)[3:].square().sum())


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_aware_beats_plain_on_the_calibration_rows_in_every_layer(name):
    make, shape = NETWORKS[name]
    network, fed = make().double(), rows(40, *shape[1:]).double()
    plan = plan_low_rank(network, fed, energy=0.8)
    assert len(plan.ranks) >= 4
    calls = {}

    def keep(path):
        return lambda m, args, made: calls.update({path: (args[0], made)})

    hooks = [network.get_submodule(p).register_forward_hook(keep(p)) for p in plan.ranks]
    network(fed)
    for hook in hooks:
        hook.remove()
    aware = cut_low_rank(network, plan, fed).module
    plain = cut_low_rank(network, by_hand(plan.ranks, aware=False), fed).module
    better = 0
    for path, (given, made) in calls.items():
        mine = (aware.get_submodule(path)(given) - made).square().sum()
        other = (plain.get_submodule(path)(given) - made).square().sum()
        assert mine <= other * (1 + 1e-9), path
        better += bool(mine < 0.95 * other)
    assert better


def test_energy_is_the_least_rank_that_keeps_it():
    network, fed = sandwich(30, 30), rows(300, 9).double()
    plan = plan_low_rank(network, fed, energy=0.9, layers=["1"])
    with torch.no_grad():
        values = torch.linalg.svdvals(network[0](fed) @ network[1].weight.T).square()
    shares = values.cumsum(0) / values.sum()
    rank = plan.ranks["1"]
    assert shares[rank - 1] >= 0.9 > shares[rank - 2]
    assert plan.energy["1"] == pytest.approx(float(shares[rank - 1]), rel=1e-6)


@pytest.mark.parametrize("target", [0.5, 0.75, 9000])
def test_a_target_of_parameters_is_met_and_counted(target):
    network, fed = vit(), rows(30, 1, 8, 8)
    plan = plan_low_rank(network, fed, parameters=target)
    goal = target if isinstance(target, int) else target * parameters(network)
    student = cut_low_rank(network, plan, fed)
    assert parameters(student.module) == plan.parameters_after <= goal
    assert plan.parameters_after > 0.9 * goal
    assert plan.parameters_before == parameters(network)
    assert min(plan.energy.values()) > 0.2


def test_first_and_last_are_protected_and_patterns_choose():
    network, fed = vit(), rows(30, 1, 8, 8)
    plan = plan_low_rank(network, fed, energy=0.5)
    assert not {"patches", "head"} & (set(plan.ranks) | set(plan.left))
    chosen = plan_low_rank(network, fed, energy=0.5, layers=["blocks.*.mlp.*"])
    assert set(chosen.ranks) == {f"blocks.{n}.mlp.{s}" for n in (0, 1) for s in ("up", "down")}


def test_the_network_is_left_as_it_was():
    network, fed = resnet().train(), rows(6, 3, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.stages[0].eval()
    network.stages[1].requires_grad_(False)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    student = cut_low_rank(network, plan_low_rank(network, fed, energy=0.7), fed).module
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert not network.stages[0].training
    for mine, other in ((student.stages[n], network.stages[n]) for n in range(3)):
        assert {m.training for m in mine.modules()} == {m.training for m in other.modules()}
        grads = {p.requires_grad for p in mine.parameters()}
        assert grads == {p.requires_grad for p in other.parameters()}


def test_a_plan_survives_json_and_gives_the_same_frame():
    network, fed = vit(), rows(20, 1, 8, 8)
    plan = plan_low_rank(network, fed, energy=0.6)
    again = LowRankPlan.from_data(json.loads(json.dumps(plan.to_data())))
    assert again == plan
    assert plan.to_data()["kind"] == "low_rank"
    trained = cut_low_rank(network, plan, fed).module
    frame = frame_low_rank(seeded(vit, seed=9), again).module
    frame.load_state_dict(trained.state_dict())
    torch.testing.assert_close(frame(fed), trained(fed))
    lines = plan.lines()
    assert len(lines) == 1 + len(plan.ranks) + len(plan.left)
    assert "rank" in lines[1]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.shared = nn.Linear(16, 16)
        self.again = self.shared
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.words.weight
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.scale = nn.Linear(16, 16)

    def forward(self, ids):
        found = self.words(ids)
        for layer in self.layers:
            found = found + layer(found)
        found = self.again(self.shared(found))
        found = found + self.attention(found, found, found)[0]
        return self.head(found @ self.scale.weight).mean(dim=1)


def test_what_would_break_is_left_alone_and_said():
    network, ids = seeded(Tied), torch.arange(40).reshape(8, 5)
    plan = plan_low_rank(network, ids, energy=0.6, layers=["*"])
    assert set(plan.ranks) == {"layers.0", "layers.1", "layers.2"}
    assert "tied" in plan.left["head"]
    assert "share" in plan.left["shared"]
    assert "reads its `weight`" in plan.left["scale"]
    assert "reads" in plan.left["attention.out_proj"]
    assert cut_low_rank(network, plan, ids).module(ids).shape == (8, 50)
    assert any("tied" in line for line in plan.lines())


def test_encoder_layers_of_pytorch_keep_what_they_read():
    layer = seeded(lambda: nn.TransformerEncoderLayer(16, 2, 64, batch_first=True))
    network = nn.Sequential(nn.Linear(16, 16), layer, nn.Linear(16, 16), nn.Linear(16, 2))
    plan = plan_low_rank(network.eval(), rows(30, 4, 16), energy=0.6)
    assert set(plan.ranks) == {"2"}
    assert "reads" in plan.left["1.linear1"]


def test_hugging_face_layers_and_wrapped_networks():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=8, use_cache=False
    )
    model = seeded(lambda: transformers.GPT2LMHeadModel(config)).double()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = model

        def forward(self, ids):
            return self.decoder(ids).logits

    network, ids = Wrapped().eval(), torch.arange(40).reshape(5, 8)
    plan = plan_low_rank(network, ids, energy=0.9)
    assert "decoder.transformer.h.0.mlp.c_fc" in plan.ranks
    full = {path: min(network.get_submodule(path).weight.shape) for path in plan.ranks}
    same = cut_low_rank(network, by_hand(full), ids).module
    torch.testing.assert_close(same(ids), network(ids), rtol=0, atol=1e-10)
    assert "tied" in plan_low_rank(network, ids, energy=0.9, layers=["*"]).left["decoder.lm_head"]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_cut_exports(name, tmp_path):
    make, shape = NETWORKS[name]
    network, fed = make(), rows(*shape)
    student = cut_low_rank(network, plan_low_rank(network, fed, energy=0.8), fed).module
    path = export_onnx(student, fed, tmp_path / "cut.onnx", metadata={})
    answers = torch.from_numpy(Deployed.open(path, threads=1).predict(fed.numpy()))
    torch.testing.assert_close(answers, student(fed).detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of `energy` and `parameters`"),
        ({"energy": 0.9, "parameters": 0.5}, "one of `energy` and `parameters`"),
        ({"energy": 1.5}, "0 < energy <= 1"),
        ({"parameters": 0.01}, r"down to [\d,]+ \(rank 1 in 8 layers\)"),
        ({"parameters": 1.5}, "share above 0"),
        ({"energy": 1.0}, r"keeps 0\.\d+ at rank"),
        ({"energy": 0.9, "layers": ["block.*"]}, "but no nn.Linear, no nn.Conv2d"),
        ({"energy": 0.9, "min_rank": 500}, "large enough"),
        ({"energy": 0.9, "min_rank": 0}, "min_rank >= 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ModelError, match=message):
        plan_low_rank(vit(), rows(30, 1, 8, 8), **options)


def test_wrong_rows_wrong_networks_and_no_layers_are_refused():
    with pytest.raises(ModelError, match="does not take the calibration rows"):
        plan_low_rank(vit(), rows(4, 3, 8, 8), energy=0.9)
    plan = plan_low_rank(vit(), rows(9, 1, 8, 8), energy=0.5)
    with pytest.raises(ModelError, match="make the plan from it"):
        cut_low_rank(mlp(), plan, rows(9, 12))
    with pytest.raises(ModelError, match="no layer to cut"):
        plan_low_rank(MLP(inputs=4, width=2, hidden=[8]), rows(9, 4), energy=0.9)
    with pytest.raises(ModelError, match="not finite"):
        plan_low_rank(mlp(), torch.full((4, 12), torch.nan), energy=0.9)


def test_what_is_no_plan_is_refused():
    with pytest.raises(ModelError, match="no plan of a low-rank cut"):
        LowRankPlan.from_data({"kind": "low_rank", "ranks": {}})


def test_layers_that_must_stay_are_told_by_their_reason():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    with pytest.raises(ModelError, match=r"layers\.0\.linear1, .* \d+ more: as the module around"):
        plan_low_rank(net, torch.randn(4, 5, 8), energy=0.5)


def test_patterns_are_a_list_and_batches_hold_a_row():
    with pytest.raises(ModelError, match="must be a list of patterns"):
        plan_low_rank(mlp(), rows(4, 12), energy=0.9, layers="hidden.*")
    with pytest.raises(ModelError, match="batch_size >= 1"):
        plan_low_rank(mlp(), rows(4, 12), energy=0.9, batch_size=0)


def test_a_layer_that_is_read_only_in_training_is_left_alone():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

        def forward(self, given):
            first, *middle, last = self.layers
            made = first(given)
            for layer in middle:
                weight = layer.weight if self.training and layer is middle[0] else None
                made = layer(made) if weight is None else nn.functional.linear(made, weight)
            return last(made)

    network = seeded(Noisy)
    plan = plan_low_rank(network, rows(40, 16), energy=0.5)
    assert set(plan.ranks) == {"layers.2"}
    assert plan.left == {"layers.1": "as the module around it reads its `weight`"}
    assert not network.training
