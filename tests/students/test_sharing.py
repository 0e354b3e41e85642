"""Blocks that share their weights: which ones, what they start from, and what stays their own."""

import json

import pytest
import torch
from torch import nn

from conformance.student import StudentCase, StudentLaws
from understudy import models
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx, stored_parameters
from understudy.export.parity import check_parity
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.students.depth import cut_depth, plan_depth
from understudy.students.sharing import SharingPlan, cut_sharing, plan_sharing

MADE = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 3, 8, 8, generator=MADE)
TOKENS = torch.randint(1, 40, (3, 6), generator=MADE)


def resnet(depth=20):
    return models.CifarResNet(channels=3, width=4, depth=depth, base=4)


def vit(depth=4):
    size = {"height": 8, "image_width": 8, "patch": 4, "dim": 16, "heads": 2}
    return models.VisionTransformer(channels=3, width=4, depth=depth, **size)


def llama():
    t = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "intermediate_size": 24, "tie_word_embeddings": True}
    config = t.LlamaConfig(vocab_size=40, **size, **more, bos_token_id=1, eos_token_id=2)
    return t.LlamaForCausalLM(config).eval()


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_groups_are_consecutive_alike_and_as_even_as_can_be():
    plan = plan_sharing(resnet(32), IMAGES, groups=7)
    assert [len(group) for group in plan.groups] == [3, 2, 1, 2, 2, 1, 4]
    assert [group[0] for group in plan.groups] == [
        "stages.0.0",
        "stages.0.3",
        "stages.1.0",
        "stages.1.1",
        "stages.1.3",
        "stages.2.0",
        "stages.2.1",
    ]
    assert [len(g) for g in plan_sharing(vit(5), IMAGES, groups=2).groups] == [3, 2]


def test_a_group_has_the_same_parameters_and_they_count_once():
    network = vit()
    student = cut_sharing(network, plan_sharing(network, IMAGES, groups=2), IMAGES)
    first, second, third, _ = student.module.blocks
    assert first.attention.qkv.weight is second.attention.qkv.weight
    assert first.mlp.down.bias is second.mlp.down.bias
    assert first.mlp.down.weight is not third.mlp.down.weight
    matrices = count(network.blocks[0]) - count(network.blocks[0].norm1) * 2
    assert count(student.module) == count(network) - 2 * matrices
    assert student.provenance == {f"blocks.{i}": f"blocks.{i}" for i in range(4)}


def test_the_mean_of_the_members_is_what_a_group_starts_from():
    network = vit()
    student = cut_sharing(network, plan_sharing(network, IMAGES, groups=1), IMAGES)
    weights = torch.stack([block.attention.proj.weight for block in network.blocks])
    shared = student.module.blocks[3].attention.proj.weight
    assert torch.allclose(shared, weights.mean(dim=0), atol=1e-6)


def test_normalisations_stay_the_positions_own():
    network = resnet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean)
    module = cut_sharing(network, plan_sharing(network, IMAGES, groups=5), IMAGES).module
    one, other = module.stages[0][0], module.stages[0][2]
    assert one.conv1.weight is other.conv1.weight
    for own, place in ((one, 0), (other, 2)):
        was = network.stages[0][place].norm1
        assert torch.equal(own.norm1.weight, was.weight)
        assert torch.equal(own.norm1.running_mean, was.running_mean)
    module.train()(IMAGES + 3)
    assert not torch.equal(one.norm1.running_mean, other.norm1.running_mean)


def test_the_gradient_of_all_positions_reaches_the_shared_weights():
    network = vit(2)
    module = cut_sharing(network, plan_sharing(network, IMAGES, groups=1), IMAGES).module
    module(IMAGES).square().sum().backward()
    shared = module.blocks[0].mlp.up.weight
    goal = torch.zeros_like(shared)
    for place in range(2):
        # A copy whose other position has weights of its own.
        apart = cut_sharing(network, plan_sharing(network, IMAGES, groups=1), IMAGES).module
        free = nn.Parameter(shared.detach().clone())
        apart.blocks[place].mlp.up.weight = free
        apart(IMAGES).square().sum().backward()
        goal += free.grad
    assert torch.allclose(shared.grad, goal, rtol=1e-4, atol=1e-5)


def test_the_representative_is_the_member_that_changes_the_answer_least():
    network = vit(3)
    with torch.no_grad():
        # All alike but the last, which is far off: it must not stand for the others.
        network.blocks[0].load_state_dict(network.blocks[1].state_dict())
        for parameter in network.blocks[2].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=MADE))
        network.blocks[0].mlp.up.weight.mul_(1.01)
    plan = plan_sharing(network, IMAGES, groups=1, by="representative", batch_size=3)
    changes = []
    for place in range(3):
        tried = SharingPlan(groups=plan.groups, by="representative", representatives=(place,))
        module = cut_sharing(network, tried, IMAGES).module
        assert torch.equal(module.blocks[1].mlp.up.weight, network.blocks[place].mlp.up.weight)
        with torch.no_grad():
            changes.append(float((module.eval()(IMAGES) - network.eval()(IMAGES)).square().mean()))
    assert plan.representatives == (changes.index(min(changes)),)
    assert len(set(changes)) == 3


def test_every_position_keeps_its_place_in_the_cache():
    network = llama()
    module = cut_sharing(network, plan_sharing(network, TOKENS, groups=2), TOKENS).module
    assert module.model.layers[0].mlp.up_proj.weight is module.model.layers[1].mlp.up_proj.weight
    assert module.lm_head.weight is module.model.embed_tokens.weight
    how = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    how["attention_mask"] = torch.ones_like(TOKENS)
    cached = module.generate(TOKENS, use_cache=True, **how)
    assert torch.equal(cached, module.generate(TOKENS, use_cache=False, **how))


def test_weights_go_into_a_file_and_back(tmp_path):
    network = resnet()
    plan = plan_sharing(network, IMAGES, groups=5)
    module = cut_sharing(network, plan, IMAGES).module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
    save_weights(module, tmp_path / "w.safetensors")
    again = cut_sharing(network, plan, IMAGES).module
    load_into(again, read_weights(tmp_path / "w.safetensors"), source="w")
    assert again.stages[0][0].conv1.weight is again.stages[0][1].conv1.weight
    with torch.no_grad():
        assert torch.equal(again.eval()(IMAGES), module.eval()(IMAGES))


def test_an_exported_file_holds_shared_kernels_once(tmp_path):
    network = resnet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    student = cut_sharing(network, plan_sharing(network, IMAGES, groups=5), IMAGES).module
    path = export_onnx(student, IMAGES, tmp_path / "model.onnx", metadata={})
    buffers = sum(buffer.numel() for buffer in student.buffers())
    assert stored_parameters(path) <= count(student) + buffers
    assert stored_parameters(path) < 0.8 * count(network)


def test_a_cut_student_can_share_too():
    network = vit()
    small = cut_depth(network, plan_depth(network, IMAGES, keep=2), IMAGES).module
    student = cut_sharing(small, plan_sharing(small, IMAGES, groups=1), IMAGES)
    assert count(student.module) < count(small)


def test_a_plan_survives_json_and_the_network_is_left_as_found():
    network = resnet().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    for by in ("mean", "representative"):
        plan = plan_sharing(network, IMAGES, groups=6, by=by)
        assert SharingPlan.from_data(json.loads(json.dumps(plan.to_data()))) == plan
        assert len(plan.lines()) == 7
        assert cut_sharing(network, plan, IMAGES).module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert count(network) == count(resnet())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("groups", [0, 4, 9])
def test_a_number_of_groups_that_cannot_be_is_refused(groups):
    with pytest.raises(ModelError, match=r"`5 <= groups < 9` must hold, as 9 blocks are of 5"):
        plan_sharing(resnet(), IMAGES, groups=groups)


def test_a_network_without_blocks_alike_is_refused():
    with pytest.raises(ModelError, match="no two consecutive blocks"):
        plan_sharing(resnet(8), IMAGES, groups=2)


def test_weights_that_are_tied_elsewhere_are_not_untied():
    network = vit(2)
    network.blocks[1].mlp.up.weight = network.blocks[0].mlp.up.weight
    network.head = nn.Linear(16, 64)
    network.head.weight = network.blocks[0].mlp.up.weight
    with pytest.raises(ModelError, match=r"weights that head\.weight has too"):
        plan_sharing(network, IMAGES, groups=1)


def test_plans_for_another_network_are_refused():
    plan = plan_sharing(vit(3), IMAGES, groups=1)
    with pytest.raises(ModelError, match="plan the cut for this network"):
        cut_sharing(vit(4), plan, IMAGES)
    wrong = SharingPlan(groups=(("stages.0.0", "stages.1.0", "stages.2.0"),), by="mean")
    with pytest.raises(ModelError, match="put such of equal shapes together"):
        cut_sharing(resnet(8), wrong, IMAGES)
    out = SharingPlan(groups=plan.groups, by="representative", representatives=(3,))
    with pytest.raises(ModelError, match="plan the cut for this network"):
        cut_sharing(vit(3), out, IMAGES)
    with pytest.raises(ModelError, match="no plan of a sharing cut"):
        SharingPlan.from_data({"kind": "sharing", "by": "median"})


class TestSharingLaws(StudentLaws):
    """A cut of a residual network keeps the laws of students."""

    @pytest.fixture
    def case(self):
        rows, network = IMAGES.float(), resnet(20)

        def make(seed):
            return cut_sharing(network, plan_sharing(network, rows, groups=5), rows)

        parent = frozenset(path for path, _ in network.named_modules())
        return StudentCase(make=make, rows=rows, width=4, parent=parent)


def test_a_file_holds_the_weights_of_shared_transformer_layers_once(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        vocab_size=50, max_position_embeddings=32,
    )  # fmt: skip

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = transformers.BertModel(config, add_pooling_layer=False)
            self.head = nn.Linear(64, 3)

        def forward(self, ids):
            return self.head(self.encoder(ids).last_hidden_state[:, 0])

    network, ids = Classifier().eval(), torch.randint(0, 50, (4, 8))
    shared = cut_sharing(network, plan_sharing(network, ids, groups=1), ids).module.eval()
    for name, module in (("whole", network), ("shared", shared)):
        export_onnx(module, ids, tmp_path / f"{name}.onnx", metadata={})
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "shared")]
    # Three layers of four are gone: about 33,000 numbers of four bytes each.
    assert sizes[0] - sizes[1] > 3 * 32_000 * 4
    with torch.no_grad():
        check_parity(
            shared(ids).numpy(), tmp_path / "shared.onnx", ids.numpy(), atol=1e-5, rtol=1e-4
        )
