"""Cuts in depth: dropping is exact, and what is left is whole."""

import json
from contextlib import ExitStack
from copy import deepcopy

import onnxruntime
import pytest
import torch
from torch import nn

from conformance.student import StudentCase, StudentLaws
from students.depth_cases import (
    CASES,
    IMAGES,
    TOKENS,
    Apart,
    answer,
    distilbert,
    gemma,
    gpt2,
    lively,
    llama,
    resnet,
)
from understudy import models
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx
from understudy.students.blocks.removal import Pass
from understudy.students.blocks.surgery import skipped
from understudy.students.depth import DepthPlan, cut_depth, plan_depth


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


class Sum(nn.Module):
    def forward(self, one, other):
        return one + other


class Summed(nn.Module):
    """A residual block whose sum is a module."""

    def __init__(self, inner=8):
        super().__init__()
        self.a, self.b = (
            nn.Sequential(nn.Conv2d(*sizes, 3, padding=1), nn.BatchNorm2d(sizes[1]), nn.ReLU())
            for sizes in ((8, inner), (inner, 8))
        )
        self.add = Sum()

    def forward(self, maps):
        return self.add(self.b(self.a(maps)), maps)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Summed(inner) for _ in range(4))
        self.head = nn.Linear(8, 5)

    def forward(self, rows):
        maps = self.stem(rows)
        for block in self.blocks:
            maps = block(maps)
        return self.head(maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("inner", [8, 16])
def test_a_block_is_not_cut_in_two_where_a_module_makes_its_sum(inner):
    plan = plan_depth(Residual(inner).double(), IMAGES, keep=0.5)
    assert plan.keep == ("blocks.0", "blocks.3")


def test_mobilebert_loses_whole_layers():
    t = pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 16, "embedding_size": 16, "intermediate_size": 24}
    config = t.MobileBertConfig(
        **sizes, num_hidden_layers=4, num_attention_heads=4, intra_bottleneck_size=8
    )
    net = t.MobileBertForSequenceClassification(config).eval()
    plan = plan_depth(net, TOKENS, keep=0.5)
    assert [path.rpartition(".")[0] for path in plan.keep] == ["mobilebert.encoder.layer"] * 2
    made = cut_depth(net, plan, TOKENS).module
    assert made.config.num_hidden_layers == 2


STAGED = {
    "regnet": (
        "RegNetForImageClassification", "RegNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 3], "groups_width": 4,
         "layer_type": "y"},
        [0, 2, 3, 4],
    ),
    "convnext": (
        "ConvNextForImageClassification", "ConvNextConfig",
        {"hidden_sizes": [8, 8, 8], "depths": [3, 3, 4], "num_stages": 3},
        [0, 1, 3, 4, 5, 6, 8],
    ),
    "dinov2": (
        "Dinov2ForImageClassification", "Dinov2Config",
        {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32,
         "patch_size": 8},
        [0, 2],
    ),
    "beit": (
        "BeitForImageClassification", "BeitConfig",
        {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32,
         "patch_size": 8, "intermediate_size": 24, "out_indices": [1, 3, 4]},
        [0, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGED)
def test_a_cut_network_of_stages_is_saved_and_loaded_as_it_is(name, tmp_path):
    """What a configuration counts by chance as many times as there are blocks is left alone."""
    t = pytest.importorskip("transformers")
    kind, config, sizes, keep = STAGED[name]
    torch.manual_seed(0)
    net = lively(getattr(t, kind)(getattr(t, config)(**sizes))).eval()
    rows = torch.randn(3, 3, 32, 32, dtype=next(net.parameters()).dtype)
    module = cut_depth(net, plan_depth(net, rows, keep=keep), rows).module.eval()
    module.save_pretrained(tmp_path)
    again = type(module).from_pretrained(tmp_path).to(rows.dtype).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(rows)[0], module(rows)[0])
