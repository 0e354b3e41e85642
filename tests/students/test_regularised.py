"""Dropout and stochastic depth: what they do while a student trains, and nothing afterwards."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.features.blocks import blocks
from understudy.models import MLP, CifarResNet, VisionTransformer
from understudy.students.regularised import with_dropout, with_stochastic_depth
from understudy.students.residuals import residuals

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def resnet(depth=14, **options):
    torch.manual_seed(0)
    return CifarResNet(channels=3, width=10, depth=depth, base=4, **options)


def vit():
    torch.manual_seed(0)
    return VisionTransformer(
        channels=3, height=8, image_width=8, width=10, patch=4, dim=16, depth=2, heads=2
    )


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_every_dropout_layer_gets_the_share():
    torch.manual_seed(0)
    found = with_dropout(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.7), nn.Linear(4, 2)), 0.2)
    assert found[1].p == 0.2
    attention = nn.Sequential(nn.MultiheadAttention(8, 2, dropout=0.3))
    assert with_dropout(attention, 0.1)[0].dropout == 0.1
    assert attention[0].dropout == 0.3


@pytest.mark.parametrize("make", [resnet, vit, lambda: MLP(inputs=192, width=10, hidden=(8,))])
def test_the_network_is_the_same_one_in_evaluation(make):
    network = make()
    rows = IMAGES if not isinstance(network, MLP) else IMAGES.flatten(1)
    dropped = with_dropout(network, 0.5)
    assert same(dropped, network)
    assert torch.equal(dropped.eval()(rows), network.eval()(rows))
    dropped.train()
    network.train()
    assert not torch.equal(dropped(rows), network(rows))


def test_without_dropout_layers_the_input_of_the_last_layer_is_dropped():
    module = nn.Sequential(nn.Linear(4, 400), nn.Linear(400, 400, bias=False))
    nn.init.eye_(module[1].weight)
    dropped = with_dropout(module, 0.25)
    rows = torch.ones(8, 4)
    answer = dropped(rows).detach()
    plain = module(rows).detach()
    gone = answer == 0
    assert 0.2 < float(gone.float().mean()) < 0.3
    torch.testing.assert_close(answer[~gone], plain[~gone] / 0.75)


def test_a_share_of_zero_changes_nothing():
    network = resnet().train()
    for found in (with_dropout(network, 0.0), with_stochastic_depth(network, IMAGES, 0.0)):
        assert torch.equal(found(IMAGES), network(IMAGES))


@pytest.mark.parametrize("make", [resnet, vit])
@pytest.mark.parametrize("per", ["row", "batch"])
def test_left_out_branches_change_nothing_in_evaluation(make, per):
    network = make()
    found = with_stochastic_depth(network, IMAGES, 0.5, per=per)
    assert same(found, network)
    assert blocks(found) == blocks(network)
    assert torch.equal(found.eval()(IMAGES), network.eval()(IMAGES))
    torch.manual_seed(1)
    assert not torch.equal(found.train()(IMAGES), network.train()(IMAGES))


class Block(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        nn.init.eye_(self.lin.weight)
        nn.init.constant_(self.lin.bias, 0.0)
        with torch.no_grad():
            self.lin.weight *= scale

    def forward(self, rows):
        return rows + self.lin(rows)


def test_a_row_has_its_branch_whole_and_divided_or_not_at_all():
    network = nn.Sequential(Block(1.0))
    found = with_stochastic_depth(network, torch.ones(2, 4), 0.25)
    torch.manual_seed(2)
    factors = found(torch.ones(4000, 4)).detach()
    assert (factors == factors[:, :1]).all()
    assert sorted(set(factors[:, 0].tolist())) == pytest.approx([1.0, 1 + 1 / 0.75])
    assert float((factors[:, 0] == 1).float().mean()) == pytest.approx(0.25, abs=0.02)
    # So the expectation is the network's own.
    assert float(factors.mean()) == pytest.approx(2.0, abs=0.03)


def test_a_batch_is_dropped_as_one():
    found = with_stochastic_depth(nn.Sequential(Block(1.0)), torch.ones(2, 4), 0.5, per="batch")
    torch.manual_seed(3)
    several = [found(torch.ones(5, 4)).detach() for _ in range(50)]
    assert all((one == one[0, 0]).all() for one in several)
    assert {float(one[0, 0]) for one in several} == {1.0, 3.0}


def test_the_probability_rises_with_depth():
    network = nn.Sequential(*(Block(10.0**n) for n in range(4)))
    rows = torch.ones(2, 4)
    for mode, shares in (("linear", [0.1, 0.2, 0.3, 0.4]), ("uniform", [0.4] * 4)):
        found = with_stochastic_depth(network, rows, 0.4, mode=mode)
        torch.manual_seed(4)
        for block, share in zip(found, shares, strict=True):
            same_rows = block(torch.ones(4000, 4)).detach()[:, 0] == 1
            assert float(same_rows.float().mean()) == pytest.approx(share, abs=0.03)


def test_a_dropped_block_of_a_resnet_gives_its_shortcut():
    network = resnet(8).train()
    found = with_stochastic_depth(network, IMAGES, 0.99, mode="uniform", per="batch")
    torch.manual_seed(0)
    maps = found.stem(IMAGES)
    assert torch.equal(found.stages[0](maps), F.relu(maps))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_all_branches_of_a_resnet_are_found_in_order(shortcut):
    found = residuals(resnet(14, shortcut=shortcut), IMAGES)
    assert [b.ends for b in found] == [(f"stages.{s}.{n}.norm2",) for s in range(3) for n in (0, 1)]


def test_deep_networks_are_followed_to_their_end():
    assert len(residuals(resnet(110), IMAGES)) == 54


def test_draws_are_a_function_of_torchs_seed():
    found = with_stochastic_depth(vit(), IMAGES, 0.5).train()
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(found(IMAGES))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_finding_branches_leaves_everything_as_it_was():
    network = resnet().train()
    network.head.weight.requires_grad_(False)
    before, state = copy.deepcopy(network), torch.get_rng_state()
    with_stochastic_depth(network, IMAGES, 0.5)
    assert same(network, before)
    assert network.training
    assert not network.head.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize("make", [resnet, vit])
def test_it_exports_as_the_plain_network(make, tmp_path):
    found = with_stochastic_depth(with_dropout(make(), 0.3), IMAGES, 0.5).eval()
    program = torch.export.export(found, (IMAGES,))
    names = [str(node.target) for node in program.graph.nodes]
    assert not any("rand" in name or "bernoulli" in name for name in names)
    torch.testing.assert_close(program.module()(IMAGES), make().eval()(IMAGES))


def test_it_becomes_one_onnx_file_with_the_bytes_of_the_plain_one(tmp_path):
    from understudy.export.onnx import export_onnx

    files = []
    for name, module in (
        ("plain", resnet(8)),
        ("regular", with_stochastic_depth(with_dropout(resnet(8), 0.3), IMAGES, 0.5)),
    ):
        files.append(export_onnx(module, IMAGES[:2], tmp_path / f"{name}.onnx", metadata={}))
    assert files[0].read_bytes() == files[1].read_bytes()


class Parallel(nn.Module):
    """Attention and more beside one another, as in GPT-J."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, rows):
        return rows + (self.one(rows) + self.two(rows))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.gamma = nn.Parameter(torch.ones(4))

    def forward(self, rows):
        return rows + self.gamma * self.lin(rows)


class Bent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, rows):
        return rows + torch.sigmoid(self.lin(rows))


def test_branches_of_several_ends_and_with_a_scale_are_found():
    rows = torch.ones(2, 4)
    assert residuals(nn.Sequential(Parallel()), rows)[0].ends == ("0.one", "0.two")
    assert residuals(nn.Sequential(Scaled()), rows)[0].ends == ("0.lin",)
    shared = Block(1.0)
    assert [b.ends for b in residuals(nn.Sequential(shared, shared), rows)] == [("0.lin",)] * 2


def test_what_has_no_branch_that_can_be_dropped_is_refused():
    rows = torch.ones(2, 4)
    with pytest.raises(ModelError, match="no residual branches that could be dropped"):
        with_stochastic_depth(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), rows, 0.1)
    with pytest.raises(ModelError, match="is no module's output"):
        with_stochastic_depth(nn.Sequential(Bent()), rows, 0.1)


def test_rows_that_are_not_the_first_axis_are_dropped_together_or_refused():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(1.0)

        def forward(self, rows):
            return self.block(rows.transpose(0, 1)).mean(dim=0)

    rows = torch.ones(2, 5, 4)
    with pytest.raises(ModelError, match=r"the first axis of `block\.lin` is not the batch"):
        with_stochastic_depth(Turned(), rows, 0.1)
    with_stochastic_depth(Turned(), rows, 0.1, per="batch").train()(rows)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_outside_zero_to_one_are_refused(share):
    with pytest.raises(ModelError, match="0 <= dropout < 1"):
        with_dropout(resnet(8), share)
    with pytest.raises(ModelError, match="0 <= stochastic_depth < 1"):
        with_stochastic_depth(resnet(8), IMAGES, share)


def test_hugging_face_networks_have_two_branches_a_block():
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 16,
    }  # fmt: skip
    ids = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**sizes, num_key_value_heads=1, tie_word_embeddings=True)
    )
    for network, last in ((bert, "output.dense"), (llama, "mlp.down_proj")):
        found = residuals(network, ids)
        assert len(found) == 4
        assert found[-1].ends[0].endswith(last)
        dropped = with_stochastic_depth(network, ids, 0.5).eval()
        assert torch.equal(dropped(ids)[0], network.eval()(ids)[0])
