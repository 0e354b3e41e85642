"""Cuts in depth: what stays, that dropping is exact, and how kept branches are scaled."""

import json
from contextlib import ExitStack
from copy import deepcopy

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conformance.student import StudentCase, StudentLaws
from understudy import models
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx
from understudy.students.blocks.choice import chosen
from understudy.students.blocks.removal import Pass
from understudy.students.blocks.surgery import Unit, skipped, units
from understudy.students.depth import DepthPlan, cut_depth, plan_depth

MADE = torch.Generator().manual_seed(0)
IMAGES = torch.randn(3, 3, 8, 8, generator=MADE, dtype=torch.float64)
TOKENS = torch.randint(1, 40, (3, 6), generator=MADE)
VIT = {"height": 8, "image_width": 8, "patch": 4, "dim": 8, "heads": 2}
SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4}


class Encoded(nn.Module):
    """An encoder inside another module, with a head on the mean of its tokens."""

    def __init__(self, encoder, dim=16):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, 3)

    def forward(self, tokens):
        return self.head(self.encoder(tokens)[0].mean(dim=1))


class Apart(nn.Module):
    """Blocks that are attributes."""

    def __init__(self):
        super().__init__()
        for name in "abcd":
            self.add_module(
                name, models.resnet.ResidualBlock(3, 3, stride=1, shortcut=nn.Identity())
            )
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.d(self.c(self.b(self.a(x)))).mean(dim=(2, 3)))


def resnet(depth=14, shortcut="A"):
    return models.CifarResNet(channels=3, width=4, depth=depth, base=2, shortcut=shortcut)


def vit():
    return models.VisionTransformer(channels=3, width=4, depth=4, **VIT)


def perceptron():
    layers = (nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(4))
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), *layers, nn.Linear(8, 2))


def bert():
    t = pytest.importorskip("transformers")
    return Encoded(t.BertModel(t.BertConfig(**SMALL, intermediate_size=24)))


def distilbert():
    t = pytest.importorskip("transformers")
    config = t.DistilBertConfig(vocab_size=40, dim=16, n_layers=4, n_heads=2, hidden_dim=24)
    return t.DistilBertModel(config)


def llama():
    t = pytest.importorskip("transformers")
    more = {"num_key_value_heads": 2, "intermediate_size": 24, "tie_word_embeddings": True}
    return t.LlamaForCausalLM(t.LlamaConfig(**SMALL, **more, bos_token_id=1, eos_token_id=2))


def gemma():
    t = pytest.importorskip("transformers")
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
    more = {"num_key_value_heads": 2, "intermediate_size": 24, "head_dim": 4, "sliding_window": 2}
    config = t.Gemma3TextConfig(**SMALL, **more, layer_types=kinds, bos_token_id=1, eos_token_id=2)
    return t.Gemma3ForCausalLM(config)


def gpt2():
    t = pytest.importorskip("transformers")
    config = t.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=4, n_head=2, bos_token_id=1, eos_token_id=2
    )
    return t.GPT2LMHeadModel(config)


def lively(network):
    """In evaluation mode, with normalisations that do something, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in network.modules():
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
            if isinstance(getattr(module, "running_mean", None), torch.Tensor):
                nn.init.normal_(module.running_mean, 0, 0.2)
            if isinstance(getattr(module, "bias", None), torch.Tensor):
                nn.init.normal_(module.bias, 0, 0.2)
    return network.double().eval()


CASES = {
    "resnet_a": (resnet, IMAGES),
    "resnet_b": (lambda: resnet(shortcut="B"), IMAGES),
    "vit": (vit, IMAGES),
    "perceptron": (perceptron, IMAGES),
    "attributes": (Apart, IMAGES),
    "bert": (bert, TOKENS),
    "distilbert": (distilbert, TOKENS),
    "llama": (llama, TOKENS),
    "gemma": (gemma, TOKENS),
    "gpt2": (gpt2, TOKENS),
}


def answer(network, rows):
    with torch.no_grad():
        made = network(rows)
    return made if isinstance(made, torch.Tensor) else made[0]


@pytest.mark.parametrize("name", CASES)
def test_a_cut_network_is_the_network_with_these_blocks_skipped(name):
    make, rows = CASES[name]
    network = lively(make())
    plan = plan_depth(network, rows, keep=0.7, by="random", seed=3)
    assert plan.drop
    student = cut_depth(network, plan, rows)
    with ExitStack() as stack:
        for path in plan.drop:
            stack.enter_context(skipped(network, path))
        goal = answer(network, rows)
    assert torch.allclose(answer(student.module, rows), goal, rtol=0, atol=1e-12)
    assert not torch.allclose(answer(network, rows), goal, rtol=0, atol=1e-6)
    count = sum(p.numel() for p in student.module.parameters())
    assert count < sum(p.numel() for p in network.parameters())
    for own, old in student.provenance.items():
        weights = network.get_submodule(old).state_dict()
        for key, value in student.module.get_submodule(own).state_dict().items():
            assert torch.equal(value, weights[key])


def test_containers_are_numbered_from_zero_again():
    network = resnet(20)
    plan = plan_depth(network, IMAGES.float(), keep=[0, 2, 3, 5, 6, 8])
    student = cut_depth(network, plan, IMAGES.float())
    assert student.provenance == {
        "stages.0.0": "stages.0.0",
        "stages.0.1": "stages.0.2",
        "stages.1.0": "stages.1.0",
        "stages.1.1": "stages.1.2",
        "stages.2.0": "stages.2.0",
        "stages.2.1": "stages.2.2",
    }
    assert [len(stage) for stage in student.module.stages] == [2, 2, 2]


def test_a_block_that_is_an_attribute_leaves_a_passage_behind():
    network = Apart()
    plan = plan_depth(network, IMAGES.float(), keep=[0, 3])
    module = cut_depth(network, plan, IMAGES.float()).module
    assert isinstance(module.b, Pass)
    assert isinstance(module.c, Pass)
    assert not isinstance(network.b, Pass)


def test_a_single_layer_goes_with_what_is_behind_it():
    network = models.MLP(inputs=6, width=2, hidden=[4, 4, 4], dropout=0.5)
    rows = torch.randn(2, 6)
    student = cut_depth(network, plan_depth(network, rows, keep=[0, 2]), rows)
    kinds = [type(module) for module in student.module.body]
    assert kinds == 2 * [nn.Linear, nn.ReLU, nn.Dropout]
    assert student.provenance == {"body.0": "body.0", "body.3": "body.6"}


def chain(*stages):
    """Units of several stages, written like `-oo`: one that must stay and two that can go."""
    return tuple(
        Unit(path=f"{stage}.{place}", removable=mark == "o", stage=stage)
        for stage, marks in enumerate(stages)
        for place, mark in enumerate(marks)
    )


RESNET = chain("ooooo", "-oooo", "-oooo")


def places(units, keep, by="evenly", seed=0):
    names = chosen(units, keep, by=by, seed=seed)
    return [place for place, unit in enumerate(units) if unit.path in names]


def test_evenly_is_the_cut_of_distilbert_and_spreads_over_stages():
    assert places(chain("o" * 12), 6) == [0, 2, 4, 7, 9, 11]
    assert places(chain("o" * 6), 3) == [0, 3, 5]
    assert places(chain("o" * 6), 1) == [0]
    assert places(RESNET, 0.5) == [0, 2, 4, 5, 7, 9, 10, 14]
    # Those that must stay count, and stay where none of their stage is due.
    assert places(RESNET, 2) == [5, 10]
    assert places(chain("o-oo-oo"), 3) == [1, 4, 6]
    assert places(RESNET, 1.0) == list(range(15))


def test_a_share_is_rounded_to_the_nearest_number_and_at_least_one():
    for share, count in ((0.01, 1), (0.37, 1), (0.38, 2), (0.62, 2), (0.63, 3), (1.0, 4)):
        assert len(places(chain("oooo"), share)) == count


def test_first_last_and_importance_are_over_the_whole_chain():
    assert places(RESNET, 4, "first") == [0, 1, 5, 10]
    assert places(RESNET, 4, "last") == [5, 10, 13, 14]
    assert places(RESNET, 2, "last") == [5, 10]
    scores = {unit.path: -float(place) for place, unit in enumerate(RESNET) if place != 5}
    assert places(RESNET, 4, scores) == [0, 1, 5, 10]
    scores["2.3"] = 1.0
    assert places(RESNET, 4, scores) == [0, 5, 10, 13]


def test_random_choices_are_a_function_of_the_seed():
    draws = [places(RESNET, 6, "random", seed) for seed in range(5)]
    assert draws == [places(RESNET, 6, "random", seed) for seed in range(5)]
    assert len({tuple(draw) for draw in draws}) == 5
    assert all(len(draw) == 6 and {5, 10} < set(draw) for draw in draws)


def test_configurations_and_places_are_brought_into_line():
    network = lively(gemma())
    plan = plan_depth(network, TOKENS, keep=[1, 2])
    module = cut_depth(network, plan, TOKENS).module
    assert module.config.num_hidden_layers == module.model.config.num_hidden_layers == 2
    assert list(module.config.layer_types) == ["full_attention", "sliding_attention"]
    assert [layer.self_attn.layer_idx for layer in module.model.layers] == [0, 1]
    assert network.config.num_hidden_layers == 4
    assert [layer.self_attn.layer_idx for layer in network.model.layers] == [0, 1, 2, 3]
    small = distilbert()
    cut = cut_depth(small, plan_depth(small, TOKENS, keep=[1, 2]), TOKENS).module
    assert cut.config.n_layers == cut.transformer.n_layers == 2


@pytest.mark.parametrize("make", [llama, gpt2, gemma])
def test_generation_with_a_cache_is_the_same_as_without(make):
    network = lively(make())
    module = cut_depth(network, plan_depth(network, TOKENS, keep=[0, 3]), TOKENS).module
    how = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    how["attention_mask"] = torch.ones_like(TOKENS)
    cached = module.generate(TOKENS, use_cache=True, **how)
    assert torch.equal(cached, module.generate(TOKENS, use_cache=False, **how))
    with torch.no_grad():
        cache = module(TOKENS, use_cache=True).past_key_values
    assert len(cache) == 2


def test_tied_embeddings_stay_tied():
    network = llama()
    assert network.lm_head.weight is network.model.embed_tokens.weight
    module = cut_depth(network, plan_depth(network, TOKENS, keep=2), TOKENS).module
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert module.lm_head.weight is not network.lm_head.weight


def changed(network, path, rows, scale=1.5):
    """The parameters of a block that a factor changes, all by that factor."""
    whole = tuple(unit.path for unit in units(network, rows))
    plan = plan_depth(network, rows, keep=len(whole), scales={path: scale})
    assert plan.scales == {path: scale}
    module = cut_depth(network, plan, rows).module
    names = []
    for name, value in module.named_parameters():
        before = network.get_parameter(name)
        if not torch.equal(value, before):
            assert torch.allclose(value, scale * before)
            names.append(name.removeprefix(f"{path}."))
    return sorted(names)


SCALED = {
    "resnet_a": ("stages.1.0", ["norm2.bias", "norm2.weight"]),
    "resnet_b": ("stages.1.0", ["norm2.bias", "norm2.weight"]),
    "vit": (
        "blocks.2",
        ["attention.proj.bias", "attention.proj.weight", "mlp.down.bias", "mlp.down.weight"],
    ),
    "bert": (
        "encoder.encoder.layer.1",
        [
            "attention.output.dense.bias",
            "attention.output.dense.weight",
            "output.dense.bias",
            "output.dense.weight",
        ],
    ),
    "distilbert": (
        "transformer.layer.3",
        ["attention.out_lin.bias", "attention.out_lin.weight", "ffn.lin2.bias", "ffn.lin2.weight"],
    ),
    "llama": ("model.layers.0", ["mlp.down_proj.weight", "self_attn.o_proj.weight"]),
    "gpt2": (
        "transformer.h.1",
        ["attn.c_proj.bias", "attn.c_proj.weight", "mlp.c_proj.bias", "mlp.c_proj.weight"],
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_factor_goes_into_the_last_layers_of_the_branches(name):
    make, rows = CASES[name]
    path, names = SCALED[name]
    assert changed(lively(make()), path, rows) == names


def test_a_scaled_residual_block_adds_so_much_of_its_branch():
    network = lively(resnet())
    plan = plan_depth(network, IMAGES, keep=4, by="first", scales={"stages.1.0": 0.25})
    module = cut_depth(network, plan, IMAGES).module
    block, maps = network.stages[1][0], IMAGES[:, :2]
    with torch.no_grad():
        branch = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(maps)))))
        goal = F.relu(0.25 * branch + block.shortcut(maps))
        assert torch.allclose(module.stages[1][0](maps), goal, rtol=0, atol=1e-12)


def test_a_scaled_layer_adds_so_much_of_both_branches():
    network = lively(vit())
    plan = plan_depth(network, IMAGES, keep=2, scales={"blocks.3": -0.5})
    module = cut_depth(network, plan, IMAGES).module
    block, tokens = network.blocks[3], torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        middle = tokens - 0.5 * block.attention(block.norm1(tokens))
        goal = middle - 0.5 * block.mlp(block.norm2(middle))
        assert torch.allclose(module.blocks[1](tokens), goal, rtol=0, atol=1e-12)


def test_what_cannot_be_scaled_is_said_and_left():
    network = lively(perceptron())
    paths = [unit.path for unit in units(network, IMAGES)]
    plan = plan_depth(network, IMAGES, keep=2, scales=dict.fromkeys(paths, 0.5))
    assert plan.scales == {}
    assert plan.unscaled == plan.keep
    assert any("cannot scale" in line for line in plan.lines())
    forced = DepthPlan(keep=plan.keep, drop=plan.drop, scales={plan.keep[0]: 0.5})
    with pytest.raises(ModelError, match=r"cannot be scaled by 0\.5"):
        cut_depth(network, forced, IMAGES)


def test_a_plan_survives_json_and_gives_the_same_student_twice():
    network = lively(resnet())
    plan = plan_depth(network, IMAGES, keep=5, scales={"stages.0.0": 2.0, "stages.0.1": 3.0})
    again = DepthPlan.from_data(json.loads(json.dumps(plan.to_data())))
    assert again == plan
    assert plan.lines()[0].startswith("keeps 5 of 6 blocks: stages.0.0")
    one, two = (cut_depth(network, made, IMAGES).module.state_dict() for made in (plan, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_network_is_not_changed_and_the_copy_is_its_own():
    network = resnet().train()
    network.stem.eval()
    network.head.weight.requires_grad_(False)
    before = deepcopy(network.state_dict())
    rows, state = IMAGES.float(), torch.get_rng_state()
    plan = plan_depth(network, rows, keep=5, scales={"stages.0.0": 2.0})
    module = cut_depth(network, plan, rows).module
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert network.training
    assert not module.stem.training
    assert not network.stem.training
    assert not module.head.weight.requires_grad
    with torch.no_grad():
        module.head.bias.add_(1)
        module.stages[0][0].norm1.running_mean.add_(1)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["attributes", "vit"])
def test_a_cut_network_can_be_exported(name, tmp_path):
    make, rows = CASES[name]
    network, rows = lively(make()).float(), rows.float()
    module = cut_depth(network, plan_depth(network, rows, keep=0.7), rows).module
    path = export_onnx(module, rows, tmp_path / "model.onnx", metadata={})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"rows": rows.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), answer(module, rows), atol=1e-4)


REFUSED = {
    "too few": (1, "evenly", r"`keep >= 2` must hold, as 2 of the 15 blocks change the shape"),
    "none": (0, "evenly", r"`1 <= keep <= 15` must hold"),
    "too many": (16, "evenly", r"`1 <= keep <= 15` must hold"),
    "no share": (1.5, "evenly", r"`0 < keep <= 1` must hold"),
    "no place": ([5, 10, 15], "evenly", r"different ones of 0 to 14"),
    "twice": ([5, 5, 10], "evenly", r"different ones of 0 to 14"),
    "protected": ([0, 5], "evenly", r"2\.0 must stay.*add \[10\] to keep=\[0, 5\]"),
    "unmeasured": (3, {"0.0": 1.0}, r"0\.1.*measure them all"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_met_is_refused(name):
    keep, by, law = REFUSED[name]
    with pytest.raises(ModelError, match=law):
        chosen(RESNET, keep, by=by, seed=0)


@pytest.mark.parametrize(
    ("scales", "law"),
    [({"stages.7": 1.0}, r"stages\.7 is none"), ({"stages.0.0": float("nan")}, "finite numbers")],
)
def test_odd_scales_are_refused(scales, law):
    with pytest.raises(ModelError, match=law):
        plan_depth(resnet(8), IMAGES.float(), keep=3, scales=scales)


def test_a_network_of_which_nothing_can_go_is_refused():
    network = models.ConvNet(channels=3, height=8, image_width=8, width=2)
    with pytest.raises(ModelError, match="none of the 2 blocks can go"):
        plan_depth(network, IMAGES.float(), keep=0.5)


def test_rows_of_another_shape_and_foreign_plans_are_refused():
    network = resnet()
    with pytest.raises(ModelError, match="does not take"):
        plan_depth(network, torch.zeros(2, 5, 8, 8), keep=3)
    plan = plan_depth(resnet(8), IMAGES.float(), keep=3)
    with pytest.raises(ModelError, match="plan the cut for this network"):
        cut_depth(network, plan, IMAGES.float())
    with pytest.raises(ModelError, match="no plan of a depth cut"):
        DepthPlan.from_data({"kind": "width"})


class TestDepthLaws(StudentLaws):
    """A cut of a residual network keeps the laws of students."""

    @pytest.fixture
    def case(self):
        rows, network = IMAGES.float(), resnet(14)

        def make(seed):
            return cut_depth(
                network, plan_depth(network, rows, keep=4, by="random", seed=seed), rows
            )

        parent = frozenset(path for path, _ in network.named_modules())
        return StudentCase(make=make, rows=rows, width=4, parent=parent)


class Repeats(nn.Module):
    """One block that runs three times, as ALBERT's, between two single layers."""

    def __init__(self):
        super().__init__()
        self.first, self.pool = nn.Linear(6, 6), nn.Linear(6, 6)
        self.block = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, rows):
        tokens = self.first(rows)
        for _ in range(3):
            tokens = tokens + self.block(tokens)
        return self.head(self.pool(tokens))


def test_single_layers_beside_a_block_that_runs_again_are_no_blocks():
    with pytest.raises(ModelError, match=r"no repeated blocks .*shared blocks run several times"):
        plan_depth(Repeats(), torch.randn(4, 6), keep=1)


class Walked(nn.Module):
    """A sequence whose layers are called one by one, so that it never runs itself."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
        self.head = nn.Linear(6, 2)

    def forward(self, rows):
        for layer in self.body:
            rows = torch.relu(layer(rows))
        return self.head(rows)


def test_a_container_that_never_runs_itself_does_not_hide_its_layers():
    plan = plan_depth(Walked(), torch.randn(4, 6), keep=2)
    assert len(plan.keep) == len(plan.drop) == 2
