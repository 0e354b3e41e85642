import copy
import json

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.export.onnx import export_onnx, stored_parameters
from understudy.models import MLP, CifarResNet, ConvNet, VisionTransformer
from understudy.students.width.checks import check_target
from understudy.students.width.criteria import axes
from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

pytest.importorskip("torch_pruning")


class Plain(nn.Module):
    """A user's residual network: depthwise, grouped and pointwise convolutions, odd norms."""

    def __init__(self, groups=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Sequential(
            nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16, affine=False), nn.PReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.InstanceNorm2d(16), nn.PReLU(16),
            nn.Conv2d(16, 8, 1),
        )  # fmt: skip
        self.wide = nn.Sequential(
            nn.Conv2d(8, 12, 1), nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1, groups=groups), nn.ReLU(), nn.Conv2d(16, 8, 1),
        )  # fmt: skip
        self.dense = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(14, 5)

    def forward(self, rows):
        maps = torch.relu(self.stem(rows))
        maps = maps + self.deep(maps)
        maps = torch.relu(maps + self.wide(maps))
        both = torch.cat([maps, torch.relu(self.dense(maps))], dim=1)
        return self.head(both.mean(dim=(2, 3)))


class Shuffled(nn.Module):
    """Channels change places between two layers, which a dependency graph does not see."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, rows):
        maps = self.first(self.stem(rows).relu()).relu().flip(1)
        return self.last(self.second(maps).relu()).mean(dim=(2, 3))


IMAGE = (3, 12, 12)
NETWORKS = {
    "padded": lambda: CifarResNet(channels=3, width=5, depth=14, base=8),
    "projected": lambda: CifarResNet(channels=3, width=5, depth=8, base=8, shortcut="B"),
    "convnet": lambda: ConvNet(channels=3, height=12, image_width=12, width=5, filters=(8, 8)),
    "mlp": lambda: MLP(inputs=432, width=5, hidden=[32, 16]),
    "vit": lambda: VisionTransformer(
        channels=3, height=12, image_width=12, width=5, patch=4, dim=32, depth=2, heads=4
    ),
    "plain": Plain,
}


def made(name):
    torch.manual_seed(0)
    net = NETWORKS[name]().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return net


def images(count=6):
    return torch.randn(
        count, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def size(net):
    return sum(p.numel() for p in net.parameters())


def unheard(net, plan):
    """The whole network, whose removed channels no later layer listens to."""
    deaf = copy.deepcopy(net)
    for layers, gone in plan.cuts:
        for path, side in layers:
            layer = deaf.get_submodule(path)
            if side == "out" or not axes(layer, "in"):
                continue
            weight = layer.weight.data.movedim(axes(layer, "in")["weight"], 0)
            groups = getattr(layer, "groups", 1)
            for channel in gone:
                rows = weight[channel % len(weight)].chunk(groups)
                rows[channel // len(weight)].zero_()
    return deaf


def same(one, two, tolerance=1e-10):
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("protect_ends", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_network_is_the_whole_one_without_what_nobody_hears(name, protect_ends):
    net, given = made(name), images()
    plan = plan_width(net, given, keep=0.5, by="random", protect_ends=protect_ends)
    student = cut_width(net, plan, given)
    same(student.module(given), unheard(net, plan)(given))
    assert not torch.allclose(student.module(given), net(given))
    assert plan.parameters == (size(net), size(student.module))
    assert size(student.module) < size(net)
    loss = student.module.train()(given).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in student.module.parameters())


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("by", ["magnitude", "taylor", "activation", "gradient"])
def test_channels_that_are_zero_go_first_and_are_not_missed(by, even):
    net, given = made("padded"), images()
    dead = {"stages.0.1.conv1": [0, 2, 5, 7], "stages.2.0.conv1": list(range(3, 19))}
    with torch.no_grad():
        for path, channels in dead.items():
            block = net.get_submodule(path.rpartition(".")[0])
            block.conv1.weight[channels] = 0
            block.norm1.weight[channels] = 0
            block.norm1.bias[channels] = 0
            block.conv2.weight[:, channels] = 0
    others = [f"stages.{n}" for n in (1,)] + [
        "stages.0.0", "stages.2.1", "stages.2.0.conv2", "stages.2.0.norm2",
    ]  # fmt: skip
    plan = plan_width(net, given, keep=0.5, by=by, even=even, protect=others)
    assert sum(old - new for _, _, old, new in plan.widths) == 20
    # A channel that no row wakes is as good as dead to what looks at the rows, and may go instead.
    if even or by == "magnitude":
        assert {gone for _, gone in plan.cuts} == {tuple(c) for c in dead.values()}
    same(cut_width(net, plan, given).module(given), net(given), 1e-13)


@pytest.mark.parametrize("name", NETWORKS)
def test_keeping_everything_changes_nothing(name):
    net, given = made(name), images()
    plan = plan_width(net, given, keep=1.0)
    assert plan.cuts == ()
    student = cut_width(net, plan, given).module
    assert torch.equal(student(given), net(given))
    assert student is not net


@pytest.mark.parametrize("name", ["padded", "projected", "convnet", "vit", "plain"])
@pytest.mark.parametrize("even", [True, False])
def test_a_parameter_target_is_met_from_below(name, even):
    net, given = made(name), images()
    plan = plan_width(net, given, parameters=0.6, even=even)
    left = size(cut_width(net, plan, given).module)
    assert plan.parameters[1] == left <= 0.6 * size(net)
    # The smallest network's units are few and large.
    assert left >= (0.55 if name == "plain" else 0.58) * size(net)
    if even:
        assert plan_width(net, given, parameters=int(0.6 * size(net))) == plan


def test_a_plan_written_and_read_gives_the_same_student():
    for name in ("padded", "vit"):
        net, given = made(name), images()
        plan = plan_width(net, given, keep=0.5, by="taylor", protect_ends=False)
        again = WidthPlan.from_data(json.loads(json.dumps(plan.to_data())))
        assert again == plan
        one, two = (cut_width(net, p, given) for p in (plan, again))
        assert one.provenance == two.provenance
        state = two.module.state_dict()
        assert all(torch.equal(values, state[n]) for n, values in one.module.state_dict().items())
        # A run cuts a fresh network of the same form and then loads what was trained.
        torch.manual_seed(9)
        fresh = cut_width(NETWORKS[name]().double(), again, given).module
        fresh.load_state_dict(one.module.state_dict())
        assert torch.equal(fresh.eval()(given), one.module(given))


def test_normalisation_keeps_the_statistics_of_the_kept_channels():
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5)
    student = cut_width(net, plan, given).module
    gone = next(g for layers, g in plan.cuts if ("stages.0.0.norm1", "out") in layers)
    kept = [c for c in range(8) if c not in gone]
    cut, whole = student.stages[0][0].norm1, net.stages[0][0].norm1
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(cut, name), getattr(whole, name)[kept])
    assert cut.num_features == 4


def test_padded_shortcuts_keep_the_stages_nested():
    net, given = made("padded"), images()
    student = cut_width(net, plan_width(net, given, keep=0.5), given).module
    # The stem is kept whole, so every stage keeps its 8 channels and half of those it adds.
    assert [stage[1].conv2.out_channels for stage in student.stages] == [8, 12, 20]
    assert [stage[0].shortcut.extra for stage in student.stages[1:]] == [4, 8]
    lifted = cut_width(net, plan_width(net, given, keep=0.5, protect_ends=False), given).module
    assert [stage[1].conv2.out_channels for stage in lifted.stages] == [4, 8, 16]
    assert [stage[0].shortcut.extra for stage in lifted.stages[1:]] == [4, 8]


def test_blocks_remember_where_they_come_from():
    net, given = made("vit"), images()
    student = cut_width(net, plan_width(net, given, keep=0.5), given)
    assert student.provenance == {"blocks.0": "blocks.0", "blocks.1": "blocks.1"}
    attention = student.module.blocks[0].attention
    assert (attention.heads, attention.head_dim) == (2, 8)
    assert attention.qkv.weight.shape == (48, 32)


@pytest.mark.parametrize("by", ["magnitude", "taylor", "activation", "gradient", "random"])
def test_planning_changes_nothing_and_repeats_itself(by):
    net, given = made("projected").train(), images()
    other = plan_width(made("convnet"), given, keep=0.5)
    before = {name: values.clone() for name, values in net.state_dict().items()}
    random = torch.get_rng_state()
    one = plan_width(net, given, keep=0.5, by=by, seed=4)
    plan_width(made("plain"), given, keep=0.25, by=by)
    assert plan_width(net, given, keep=0.5, by=by, seed=4) == one
    assert plan_width(made("convnet"), given, keep=0.5) == other
    student = cut_width(net, one, given).module
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], values) for name, values in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(m.training for m in (*net.modules(), *student.modules()))


def test_widths_are_rounded_and_groups_stay_equal():
    net, given = made("plain"), images()
    plan = plan_width(net, given, keep=0.6, round_to=4)
    assert {new % 4 for path, _, _, new in plan.widths if path != "dense"} == {0}
    student = cut_width(net, plan, given).module
    assert student.wide[2].groups == 2
    assert student.deep[3].groups == student.deep[3].in_channels == student.deep[0].out_channels
    assert student.deep[4].num_features == student.deep[3].out_channels


def test_scores_compete_over_layers_where_the_cut_is_not_even():
    net, given = made("padded"), images()
    with torch.no_grad():
        net.stages[1][1].conv2.weight[:, 1:] *= 1e-3
        net.stages[1][1].conv1.weight[1:] *= 1e-3
        net.stages[1][1].norm1.weight[1:] *= 1e-3
    plan = plan_width(net, given, keep=0.7, even=False)
    shares = {path: new / old for path, _, old, new in plan.widths}
    assert min(shares, key=shares.__getitem__) == "stages.1.1.conv1"
    assert max(shares.values()) > 0.8
    same(cut_width(net, plan, given).module(given), unheard(net, plan)(given))


def test_protected_layers_stay_as_they_are():
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5, protect=["stages.1"])
    student = cut_width(net, plan, given).module
    assert [tuple(p.shape) for p in student.stages[1].parameters()] == [
        tuple(p.shape) for p in net.stages[1].parameters()
    ]
    assert student.stages[2][0].conv1.out_channels == 16
    assert any("as protected" in line and "stages.1.0.conv1" in line for line in plan.lines())
    with pytest.raises(ModelError, match=r"use one of its modules, as `stages.1.0.conv2`"):
        plan_width(net, given, keep=0.5, protect=["stages.1.0.conv"])


def test_lines_say_what_is_cut_and_what_is_not():
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5)
    lines = plan.lines()
    assert "0.5 of the units kept by magnitude" in lines[0]
    assert f"{plan.parameters[1]:,}" in lines[0]
    assert "  stages.0.0.conv1: 8 -> 4 channels" in lines
    assert "  kept whole, as the first layer: stem.0" in lines


@pytest.mark.parametrize("name", ["padded", "vit"])
def test_a_cut_network_can_be_exported(name, tmp_path):
    given = images().float()
    small = {"padded": CifarResNet(channels=3, width=5, depth=8, base=4).eval()}
    net = small.get(name) or made(name).float()
    student = cut_width(net, plan_width(net, given, keep=0.5, protect_ends=False), given).module
    path = export_onnx(student, given, tmp_path / "cut.onnx", metadata={})
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    found = torch.from_numpy(session.run(None, {"rows": given.numpy()})[0])
    torch.testing.assert_close(found, student(given), rtol=1e-4, atol=1e-5)
    # Batch normalisation is folded: the file holds no more than the cut network, and its constants.
    assert stored_parameters(path) < 1.05 * size(student) + 64


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({}, "exactly one of"),
        ({"keep": 0.5, "parameters": 0.5}, "exactly one of"),
        ({"keep": 0.0}, "`0 < keep <= 1` must hold, but got keep=0.0"),
        ({"keep": 1.5}, "`0 < keep <= 1` must hold"),
        ({"parameters": -3}, "`parameters > 0` must hold"),
        ({"keep": 0.5, "round_to": 0}, "`round_to >= 1` must hold"),
        ({"parameters": 10}, r"`parameters` must be at least [\d,]+ \(.*but got 10"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(wrong, law):
    with pytest.raises(ModelError, match=law):
        plan_width(made("padded"), images(), **wrong)


def test_rows_of_another_shape_are_refused():
    with pytest.raises(ModelError, match=r"rows of shape \(6, 4, 12, 12\).*it raised"):
        plan_width(made("padded"), torch.zeros(6, 4, 12, 12, dtype=torch.float64), keep=0.5)
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5)
    with pytest.raises(ModelError, match="it is not: look at"):
        cut_width(net, plan, given * torch.nan)


def test_heads_that_do_not_divide_are_refused_with_what_can_be_kept():
    with pytest.raises(ModelError, match=r"4 heads and keep=0.6: use 0.25, 0.5, 0.75, 1, or prot"):
        plan_width(made("vit"), images(), keep=0.6)


def test_a_plan_for_another_network_is_refused():
    plan = plan_width(made("padded"), images(), keep=0.5)
    with pytest.raises(ModelError, match=r"does not have: a plan fits"):
        cut_width(made("vit"), plan, images())
    small = CifarResNet(channels=3, width=5, depth=14, base=4).double()
    with pytest.raises(ModelError, match=r"but there are \d+: a plan fits"):
        cut_width(small, plan, images())
    with pytest.raises(ModelError, match='`kind` must be "width"'):
        WidthPlan.from_data({"kind": "depth"})


def test_a_layer_whose_channels_are_mixed_up_later_stays_whole():
    torch.manual_seed(0)
    net = Shuffled().double()
    plan = plan_width(net, images(), keep=0.5)
    assert ("first", "as an operation mixes its channels by their number") in plan.whole
    assert [path for path, *_ in plan.widths] == ["second"]
    same(cut_width(net, plan, images()).module(images()), unheard(net, plan)(images()))
    with pytest.raises(ModelError, match=r"nothing to narrow: `first` as an operation mixes"):
        plan_width(net, images(), keep=0.5, protect=["second"])


def test_a_network_with_nothing_between_its_ends_is_refused():
    with pytest.raises(ModelError, match=r"nothing to narrow: `0` as the first layer"):
        plan_width(made("mlp").body[:1], images().flatten(1), keep=0.5)
    net = MLP(inputs=432, width=5, hidden=[8]).double()
    with pytest.raises(ModelError, match=r"nothing to narrow: `body.0` as the first layer"):
        plan_width(net, images(), keep=0.5)
    assert plan_width(net, images(), keep=0.5, protect_ends=False).widths == (
        ("body.0", "channels", 8, 4),
    )


# Transformers --------------------------------------------------------------------------------


class Wrapped(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(32, 3)

    def forward(self, ids):
        return self.head(self.encoder(ids).last_hidden_state[:, 0])


class Encoder(nn.Module):
    """PyTorch's own attention, in which heads and tokens are as wide as each other."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        return self.layers(self.words(ids))


def bert(transformers):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64,
    )  # fmt: skip
    return transformers.BertModel(config)


def distilbert(transformers):
    config = transformers.DistilBertConfig(
        vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64
    )
    return transformers.DistilBertModel(config)


def llama(transformers, keys=2):
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=keys, intermediate_size=64, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2(transformers):
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


LANGUAGE = {
    "bert": bert,
    "distilbert": distilbert,
    "llama": llama,
    "one key": lambda transformers: llama(transformers, keys=1),
    "gpt2": gpt2,
    "wrapped": lambda transformers: Wrapped(bert(transformers)),
    "torch": lambda transformers: Encoder(),
}


def spoken(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return LANGUAGE[name](transformers).double().eval()


def words():
    return torch.randint(3, 50, (5, 9), generator=torch.Generator().manual_seed(1))


def said(net):
    found = net(words())
    return getattr(found, "logits", getattr(found, "last_hidden_state", found))


@pytest.mark.parametrize("by", ["taylor", "activation"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_a_cut_transformer_is_the_whole_one_without_what_nobody_hears(name, by):
    net = spoken(name)
    whole = said(net)
    plan = plan_width(net, words(), keep=0.5, by=by)
    student = cut_width(net, WidthPlan.from_data(plan.to_data()), words()).module
    same(said(student), said(unheard(net, plan)))
    assert torch.equal(said(net), whole)
    assert not torch.allclose(said(student), whole)
    assert plan.parameters == (size(net), size(student))
    assert {new / old for _, _, old, new in plan.widths} == {0.5}
    kinds = {kind for _, kind, _, _ in plan.widths}
    assert kinds == ({"units"} if name == "torch" else {"heads", "units"})
    assert "the tokens' width" in plan.lines()[-1]


@pytest.mark.parametrize(("keep", "heads", "keys"), [(0.5, 4, 1), (0.75, 6, 2), (0.25, 2, 2)])
def test_queries_that_share_keys_go_together_or_evenly(keep, heads, keys):
    net = spoken("llama")
    plan = plan_width(net, words(), keep=keep)
    student = cut_width(net, plan, words()).module
    same(said(student), said(unheard(net, plan)))
    attention = student.model.layers[0].self_attn
    assert attention.q_proj.out_features == attention.o_proj.in_features == heads * 4
    assert attention.k_proj.out_features == keys * 4
    assert attention.num_key_value_groups == heads // keys
    assert ("model.layers.0.self_attn", "heads", 8, heads) in plan.widths
    assert student.config.num_attention_heads == heads
    assert student.config.num_key_value_heads == keys
    assert student.config.intermediate_size == int(64 * keep)
    assert (net.config.num_attention_heads, net.config.num_key_value_heads) == (8, 2)
    assert student.lm_head.weight is student.model.embed_tokens.weight
    with pytest.raises(ModelError, match=r"8 heads in 2 groups that share keys and keep=0.6: use"):
        plan_width(net, words(), keep=0.6)


def test_a_configuration_says_nothing_where_layers_differ():
    net = spoken("bert")
    plan = plan_width(net, words(), keep=0.5, protect=["encoder.layer.0.attention.self"])
    student = cut_width(net, plan, words()).module
    assert student.config.num_attention_heads == 4
    assert student.config.intermediate_size == 32
    heads = [layer.attention.self.num_attention_heads for layer in student.encoder.layer]
    assert heads == [4, 2]


def test_a_head_that_is_zero_goes_first_and_is_not_missed():
    net = spoken("bert")
    attention = net.encoder.layer[1].attention
    with torch.no_grad():
        for layer in (attention.self.query, attention.self.key, attention.self.value):
            layer.weight[8:16] = 0
            layer.bias[8:16] = 0
        attention.output.dense.weight[:, 8:16] = 0
    others = [f"encoder.layer.{n}.intermediate" for n in (0, 1)] + ["encoder.layer.0"]
    for by in ("magnitude", "taylor", "activation", "gradient"):
        plan = plan_width(net, words(), keep=0.75, by=by, protect=others)
        assert [gone for _, gone in plan.cuts] == [tuple(range(8, 16))]
        same(said(cut_width(net, plan, words()).module), said(net), 1e-13)


def test_a_transformer_meets_a_parameter_target_by_its_hidden_units():
    net = spoken("bert")
    plan = plan_width(net, words(), parameters=0.8)
    left = size(cut_width(net, plan, words()).module)
    assert plan.parameters[1] == left
    assert 0.79 * size(net) <= left <= 0.8 * size(net)
    with pytest.raises(ModelError, match=r"`parameters` must be at least .*but got 0.1"):
        plan_width(net, words(), parameters=0.1)


class Mixed(nn.Module):
    """One layer of a user's transformer, whose heads nothing announces, or an MLP-Mixer's."""

    def __init__(self, dim, tokens, kind):
        super().__init__()
        self.kind, self.count = kind, 4
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        if kind == "mixer":
            self.across = nn.Sequential(
                nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens)
            )
        else:
            self.asks, self.told, self.said = (nn.Linear(dim, dim) for _ in range(3))
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, given):
        way = self.norm1(given)
        if self.kind == "mixer":
            mixed = self.across(way.transpose(1, 2)).transpose(1, 2)
        else:
            rows, tokens, _ = way.shape
            asks, told, said = (
                part(way).view(rows, tokens, self.count, -1).transpose(1, 2)
                for part in (self.asks, self.told, self.said)
            )
            mixed = (asks @ told.mT / asks.shape[-1] ** 0.5).softmax(-1) @ said
            mixed = mixed.transpose(1, 2).flatten(2)
            mixed = nn.functional.pad(mixed, (0, given.shape[-1] - mixed.shape[-1]))
        given = given + mixed
        return given + self.ff(self.norm2(given))


class Words(nn.Module):
    def __init__(self, kind, dim=16):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(30, dim)
        self.layers = nn.ModuleList([Mixed(dim, 10, kind) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 3)

    def forward(self, rows):
        tokens = 2 * self.words(rows)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens).mean(1))


def sentences(count=6):
    return torch.randint(0, 30, (count, 10), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["heads", "mixer"])
def test_heads_and_tokens_that_nobody_announces_are_left_whole_and_the_rest_is_exact(kind):
    net, given = Words(kind).double(), sentences()
    plan = plan_width(net, given, keep=0.5)
    cut = {path: (old, new) for path, _, old, new in plan.widths}
    assert cut["layers.0.ff.0"] == cut["layers.1.ff.0"] == (32, 16)
    assert not any(name in path for path in cut for name in ("asks", "told", "said"))
    same(cut_width(net, plan, given).module(given), unheard(net, plan)(given))


def test_the_width_of_tokens_may_go_where_the_ends_are_not_protected():
    net, given = Words("mixer").double(), sentences()
    plan = plan_width(net, given, keep=0.5, protect_ends=False)
    assert plan.parameters[1] == size(cut_width(net, plan, given).module)


HUGGING = {
    "T5": (
        "T5EncoderModel",
        {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4},
    ),
    "GPTNeoX": ("GPTNeoXForSequenceClassification", {}),
    "Phi3": ("Phi3ForSequenceClassification", {"num_key_value_heads": 2}),
    "DebertaV2": (
        "DebertaV2ForSequenceClassification",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
}


@pytest.mark.parametrize("name", HUGGING)
def test_attention_of_unknown_form_stays_whole_and_hidden_units_go(name):
    transformers = pytest.importorskip("transformers")
    kind, own = HUGGING[name]
    sizes = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if name != "T5":
        sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 32, "max_position_embeddings": 32}
    torch.manual_seed(0)
    net = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**sizes, **own))
    net, given = net.double().eval(), sentences()
    plan = plan_width(net, given, keep=0.5)
    assert {(old, new) for _, _, old, new in plan.widths} >= {(32, 16)}
    assert not any(kind == "heads" for _, kind, _, _ in plan.widths)
    assert plan.whole
    student = cut_width(net, WidthPlan.from_data(json.loads(json.dumps(plan.to_data()))), given)
    found, whole = (m(given)[0] for m in (student.module, unheard(net, plan)))
    same(found, whole)
    assert plan.parameters == (size(net), size(student.module))


def test_an_unknown_criterion_and_a_broken_plan_are_refused():
    net, given = made("mlp"), images().flatten(1)
    with pytest.raises(ModelError, match=r"`by` must be one of magnitude, .* but got middle"):
        check_target(0.5, None, 1, "middle")
    data = plan_width(net, given, keep=0.5).to_data()
    del data["cuts"]
    with pytest.raises(ModelError, match=r"no plan of a width cut .*plan it again"):
        WidthPlan.from_data(data)
