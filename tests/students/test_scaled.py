"""Fresh students, scaled to a target by counting."""

import json

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.evaluate.cost import flops, parameters
from understudy.export.onnx import export_onnx
from understudy.models import MLP, CifarResNet, ConvNet, VisionTransformer
from understudy.students.scaled.family import ScaledPlan, of_config, plan_scaled

IMAGES = torch.zeros(2, 3, 16, 16)
SIZE = {"channels": 3, "height": 16, "image_width": 16, "width": 10}
FAMILIES = {
    "resnet": (CifarResNet, {"channels": 3, "width": 10, "depth": 14, "base": 24}),
    "vit": (VisionTransformer, {**SIZE, "patch": 4, "dim": 64, "depth": 3, "heads": 8}),
    "convnet": (ConvNet, SIZE),
    "mlp": (MLP, {"inputs": 768, "width": 10, "hidden": [120, 60]}),
}


def planned(name, **options):
    factory, arguments = FAMILIES[name]
    return plan_scaled(factory, arguments, teacher=factory(**arguments), rows=IMAGES, **options)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_largest_that_fits_is_found_and_counted(name, share):
    factory, arguments = FAMILIES[name]
    plan = planned(name, parameters=share)
    goal = share * parameters(factory(**arguments))
    made = factory(**plan.arguments)
    assert parameters(made) == plan.parameters <= round(goal)
    # Steps of the width are one channel, or one head.
    assert plan.parameters > 0.75 * goal
    assert made(IMAGES).shape == (2, 10)


def test_no_larger_width_would_fit():
    plan = planned("resnet", parameters=0.25)
    arguments = dict(plan.arguments) | {"base": plan.arguments["base"] + 1}
    assert parameters(CifarResNet(**arguments)) > plan.target["parameters"]


def test_heads_keep_their_size():
    plan = planned("vit", parameters=0.3)
    assert plan.arguments["dim"] / plan.arguments["heads"] == 64 / 8
    assert plan.arguments["heads"] < 8
    assert plan.arguments["depth"] == 3


def test_depth_changes_only_where_asked_and_first():
    assert planned("resnet", parameters=0.4).arguments["depth"] == 14
    deep = planned("resnet", parameters=0.6, vary=["depth"])
    assert (deep.arguments["depth"], deep.arguments["base"]) == (8, 24)
    both = planned("resnet", parameters=0.2, vary=["depth", "base"])
    assert both.arguments["depth"] == 8
    assert both.arguments["base"] < 24
    grown = planned("resnet", parameters=2.0, vary=["depth"])
    assert grown.arguments["depth"] > 14
    assert grown.parameters <= grown.target["parameters"]


def test_a_larger_target_widens():
    plan = planned("mlp", parameters=2.0)
    assert plan.arguments["hidden"][0] > 200
    assert 0.95 * plan.target["parameters"] < plan.parameters <= plan.target["parameters"]


def test_bytes_are_met_by_the_exported_file(tmp_path):
    plan = planned("convnet", bytes=150_000)
    made = ConvNet(**plan.arguments)
    path = export_onnx(made, torch.randn(2, 3, 16, 16), tmp_path / "it.onnx", metadata={})
    assert 0.9 * 150_000 < path.stat().st_size <= 150_000
    assert plan.reached["bytes"] == pytest.approx(path.stat().st_size, rel=0.05)
    half = planned("convnet", bytes=150_000, bytes_per_weight=2)
    assert half.parameters > 1.8 * plan.parameters
    heavy = planned(
        "convnet", bytes=150_000, teacher_bytes=4 * parameters(ConvNet(**SIZE)) + 80_000
    )
    assert heavy.parameters < plan.parameters


def test_latency_goes_by_operations():
    factory, arguments = FAMILIES["resnet"]
    plan = planned("resnet", latency_ms=2.0, teacher_latency_ms=8.0)
    ratio = flops(factory(**plan.arguments), IMAGES) / flops(factory(**arguments), IMAGES)
    assert ratio <= 0.25
    assert plan.reached["latency_ms"] == pytest.approx(8.0 * ratio)
    assert plan.reached["latency_ms"] > 1.5


def test_every_target_holds_at_once():
    loose = planned("mlp", parameters=0.5)
    both = planned("mlp", parameters=0.5, bytes=100_000)
    assert both.parameters < loose.parameters
    assert both.reached["bytes"] <= 100_000


def test_planning_makes_no_weights_and_draws_nothing():
    torch.manual_seed(0)
    factory, arguments = FAMILIES["mlp"]
    teacher = factory(**arguments)
    devices = []

    def watched(**given):
        made = factory(**given)
        devices.append(next(made.parameters()).device.type)
        return made

    state = torch.get_rng_state()
    plan_scaled(watched, arguments, teacher=teacher, rows=IMAGES, parameters=0.5, vary=["hidden"])
    assert torch.equal(state, torch.get_rng_state())
    assert set(devices) == {"meta"}
    assert len(devices) < 30


def test_a_plan_survives_json():
    plan = planned("convnet", parameters=0.5)
    assert plan.to_data()["kind"] == "scaled"
    assert ScaledPlan.from_data(json.loads(json.dumps(plan.to_data()))) == plan
    assert "filters" in plan.lines()[-1]
    assert "%" in plan.lines()[1]


class Grouped(nn.Module):
    """A user's own, which refuses widths that its groups do not divide, and looks at a value."""

    def __init__(self, *, channels=24, blocks=4):
        super().__init__()
        self.rate = torch.linspace(0, 1, blocks)[-1].item()
        self.first = nn.Linear(24, channels)
        self.body = nn.Sequential(*(nn.Linear(channels, channels) for _ in range(blocks)))
        self.norm = nn.GroupNorm(6, channels)

    def forward(self, rows):
        return self.norm(self.body(self.first(rows)))


def test_a_network_of_the_users_own():
    own = {"teacher": Grouped(), "rows": torch.zeros(2, 24)}
    plan = plan_scaled(Grouped, {}, parameters=0.7, vary=["channels"], **own)
    assert plan.arguments == {"channels": 18}
    assert plan_scaled(Grouped, {}, parameters=0.81, vary=["blocks"], **own).arguments == {
        "blocks": 3
    }
    with pytest.raises(ModelError, match=r"known as a width.*channels, blocks"):
        plan_scaled(Grouped, {}, parameters=0.5, **own)


@pytest.mark.parametrize(("share", "bound"), [(0.6, 0.7), (0.25, 0.4)])
def test_hugging_face_configs(share, bound):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=160,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_hidden_layers=2,
    )
    teacher = transformers.LlamaForCausalLM(config)
    ids = torch.zeros(1, 8, dtype=torch.int64)
    factory, arguments = of_config(teacher)
    plan = plan_scaled(factory, arguments, teacher=teacher, rows=ids, parameters=share)
    made = factory(**plan.arguments)
    assert made(ids).logits.shape == (1, 8, 60)
    own = made.config
    assert own.hidden_size / own.num_attention_heads == 8
    assert own.num_attention_heads / own.num_key_value_heads == 2
    assert bound * plan.target["parameters"] < plan.parameters <= plan.target["parameters"]
    timed = plan_scaled(
        factory, arguments, teacher=teacher, rows=ids, latency_ms=1.0, teacher_latency_ms=2.0
    )
    assert timed.arguments["hidden_size"] < 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a target must be given"),
        ({"parameters": 0}, "above 0"),
        ({"latency_ms": 1.0}, "teacher_latency_ms"),
        ({"parameters": 100}, r"smallest of this family has [\d,]+ parameters \(base=1\)"),
        ({"parameters": 900, "vary": ["depth"]}, r"smallest .* \(depth=8\)"),
        ({"parameters": 0.5, "vary": ["bass"]}, "did you mean `base`"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ModelError, match=message):
        planned("resnet", **options)


def test_heads_that_do_not_divide_and_what_cannot_be_counted_are_refused():
    arguments = FAMILIES["vit"][1]
    teacher = VisionTransformer(**arguments)
    with pytest.raises(ModelError, match=r"dim % heads == 0"):
        plan_scaled(
            VisionTransformer,
            arguments | {"heads": 7},
            teacher=teacher,
            rows=IMAGES,
            parameters=0.5,
        )
    with pytest.raises(ModelError, match="cannot be counted"):
        plan_scaled(
            VisionTransformer,
            arguments,
            teacher=teacher,
            rows=torch.zeros(2, 5),
            latency_ms=1.0,
            teacher_latency_ms=2.0,
        )
    with pytest.raises(ModelError, match="no `config`"):
        of_config(teacher)


class Apart(nn.Module):
    """Two widths that must be equal, of which the constructor does not say so."""

    def __init__(self, dim=32, own=32):
        super().__init__()
        self.first, self.last = nn.Linear(8, dim), nn.Linear(own, 3)

    def forward(self, rows):
        return self.last(self.first(rows))


def test_a_network_that_would_not_run_is_refused():
    with pytest.raises(ModelError, match=r"a network of dim=\d+ does not run.*change together"):
        plan_scaled(Apart, {}, teacher=Apart(), rows=torch.zeros(2, 8), parameters=0.5)
    plan = plan_scaled(
        Apart, {}, teacher=Apart(), rows=torch.zeros(2, 8), parameters=0.5, vary=["dim", "own"]
    )
    assert plan.arguments["dim"] == plan.arguments["own"]


def test_a_width_by_another_name_goes_with_it():
    t = pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    net = t.DebertaV2ForSequenceClassification(
        t.DebertaV2Config(**sizes, intermediate_size=96, max_position_embeddings=32)
    ).eval()
    factory, arguments = of_config(net)
    tokens = torch.randint(1, 40, (2, 6))
    plan = plan_scaled(factory, arguments, teacher=net, rows=tokens, parameters=0.3)
    assert plan.arguments["pooler_hidden_size"] == plan.arguments["hidden_size"] < 64
    assert factory(**plan.arguments)(tokens)[0].shape == (2, 2)


def test_heads_of_every_stage_are_the_constructors_to_judge():
    t = pytest.importorskip("transformers")
    sizes = {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4], "image_size": 32}
    net = t.SwinForImageClassification(t.SwinConfig(**sizes, patch_size=4, window_size=4)).eval()
    factory, arguments = of_config(net)
    images = torch.zeros(1, 3, 32, 32)
    plan = plan_scaled(factory, arguments, teacher=net, rows=images, parameters=0.5)
    assert factory(**plan.arguments)(images)[0].shape == (1, 2)
