"""Which weights go, how many when, and what is refused."""

import json
from itertools import pairwise

import jaxtyping
import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.models import CifarResNet, VisionTransformer
from understudy.models.deployable import Deployable
from understudy.students.prunable import prunable
from understudy.students.sparse import Masks, Sparsity


def network(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*layers)


def pruned(module, sparsity, steps=20):
    masks = Masks(module, sparsity)
    for step in range(steps + 1):
        masks.follow(module, step=step, steps=steps)
    return masks


# --- the schedule --------------------------------------------------------------------------------


def test_the_cubic_schedule_is_that_of_the_paper():
    sparsity = Sparsity(to=0.8, begin=0.1, end=0.6, every=1)
    for step in range(101):
        way = min(1.0, max(0.0, (step - 10) / 50))
        assert sparsity.ramp(step, steps=100) == pytest.approx(1 - (1 - way) ** 3)
    linear = Sparsity(to=0.8, begin=0.1, end=0.6, schedule="linear")
    assert linear.ramp(35, steps=100) == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 3, 7, 100, 101])
@pytest.mark.parametrize("options", [{}, {"begin": 0.3, "end": 1.0}, {"schedule": "once"},
                                     {"every": 1000}])  # fmt: skip
def test_whatever_the_length_all_are_gone_at_the_end(steps, options):
    module = network(8, 16, 16, 4)
    masks = pruned(module, Sparsity(to=0.5, **options), steps)
    assert masks.settled
    assert int((module[1].weight == 0).sum()) == 128


def test_weights_are_chosen_every_so_often():
    sparsity = Sparsity(to=0.5, begin=0.2, end=0.65, every=20)
    due = [step for step in range(101) if sparsity.due(step, steps=100)]
    assert due == [20, 40, 60, 65]
    assert next(step for step in range(101) if sparsity.over(step, steps=100)) == 65


# --- which ones ----------------------------------------------------------------------------------


def test_the_smallest_of_the_whole_network_go():
    module = network(4, 8, 8, 8, 2)
    with torch.no_grad():
        module[1].weight *= 0.01
    before = torch.cat([module[n].weight.detach().flatten().abs() for n in (1, 2)])
    pruned(module, Sparsity(to=0.4))
    gone = torch.cat([module[n].weight.detach().flatten() == 0 for n in (1, 2)])
    assert int(gone.sum()) == round(0.4 * 128)
    assert before[gone].max() < before[~gone & (torch.arange(128) >= 64)].min()


def test_a_layer_of_small_weights_is_not_emptied():
    module = network(4, 8, 8, 8, 2)
    with torch.no_grad():
        module[1].weight *= 1e-6
    pruned(module, Sparsity(to=0.6))
    assert int((module[1].weight != 0).sum()) == 1  # 1 % of 64, rounded up


def test_per_layer_each_loses_its_share():
    module = network(4, 8, 8, 8, 2)
    with torch.no_grad():
        module[1].weight *= 0.01
    masks = pruned(module, Sparsity(to=0.25, scope="layer"))
    assert masks.shares() == {"1.weight": 0.25, "2.weight": 0.25}


def test_of_equal_weights_exactly_as_many_go():
    module = network(4, 8, 8, 2)
    with torch.no_grad():
        module[1].weight.fill_(0.5)
    assert pruned(module, Sparsity(to=0.3)).share() == round(0.3 * 64) / 64


@pytest.mark.parametrize(("to", "kept", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)])
def test_n_of_m_along_the_inputs_of_a_convolution(to, kept, group):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 4, 1))
    before = module[1].weight.detach().clone()
    pruned(module, Sparsity(to=to))
    weight = module[1].weight.detach()
    groups = weight.permute(0, 2, 3, 1).reshape(-1, group)
    assert ((groups != 0).sum(dim=1) == kept).all()
    old = before.permute(0, 2, 3, 1).reshape(-1, group).abs()
    smallest_kept = old.masked_fill(groups == 0, torch.inf).amin(dim=1)
    assert (old.masked_fill(groups != 0, 0).amax(dim=1) <= smallest_kept).all()


def test_what_is_gone_stays_gone_and_the_rest_is_left_alone():
    module = network(4, 8, 8, 2)
    masks = Masks(module, Sparsity(to=0.5, every=1))
    masks.follow(module, step=3, steps=20)
    gone = masks.gone()["1.weight"].clone()
    with torch.no_grad():
        module[1].weight += 10
    kept = module[1].weight.detach()[~gone].clone()
    masks.follow(module, step=3, steps=20)
    assert (module[1].weight[gone] == 0).all()
    assert torch.equal(module[1].weight.detach()[~gone], kept)
    masks.follow(module, step=20, steps=20)
    assert masks.gone()["1.weight"][gone].all()


def test_a_second_pruning_begins_where_the_first_one_ended():
    module = network(4, 16, 16, 2)
    pruned(module, Sparsity(to=0.5))
    gone = module[1].weight == 0
    masks = Masks(module, Sparsity(to=0.75))
    assert masks.share() == 0.5
    masks.follow(module, step=0, steps=20)
    assert masks.share() == 0.5
    masks.finish(module)
    assert masks.share() == 0.75
    assert masks.settled
    assert (module[1].weight[gone] == 0).all()
    held = Masks(module, Sparsity(to=0.75, schedule="once"))
    held.follow(module, step=0, steps=20)
    assert (held.share(), held.settled) == (0.75, True)
    with pytest.raises(ModelError, match=r"0.75 of the weights .* got to=0.5"):
        Masks(module, Sparsity(to=0.5))


def test_a_layer_that_starts_at_zero_is_not_gone():
    module = network(4, 8, 8, 8, 2)
    nn.init.zeros_(module[1].weight)
    masks = Masks(module, Sparsity(to="zeros"))
    assert masks.share() == 0
    assert masks.lines() == [
        "2 layers, 128 weights that can be pruned; the 0.0% that are zero stay so"
    ]


def test_masks_read_from_another_ones_state_are_the_same():
    module = network(4, 8, 8, 2)
    masks = pruned(module, Sparsity(to=0.5))
    other = Masks(network(4, 8, 8, 2), Sparsity(to=0.5))
    other.load_state_dict(masks.state_dict())
    assert other.settled
    assert torch.equal(other.gone()["1.weight"], masks.gone()["1.weight"])


# --- which layers --------------------------------------------------------------------------------


def names(module, **options):
    return [weight.name for weight in prunable(module, **options)]


def test_our_networks_lose_everything_but_the_ends():
    resnet = CifarResNet(channels=3, width=10, depth=8)
    found = names(resnet)
    assert found[0] == "stages.0.0.conv1.weight"
    assert len(found) == 6
    assert not any("norm" in name or "head" in name or "stem" in name for name in found)
    vit = VisionTransformer(
        channels=3, height=8, image_width=8, width=10, patch=4, dim=16, depth=2, heads=2
    )
    assert len(names(vit)) == 8


def test_names_are_those_inside_a_deployable():
    whole = Deployable(preprocess=nn.Identity(), network=network(4, 8, 8, 2), width=2)
    assert list(Masks(whole, Sparsity(to=0.5)).gone()) == ["1.weight"]
    pruned(whole, Sparsity(to=0.5))
    assert int((whole.network[1].weight == 0).sum()) == 32


def test_embeddings_are_left_and_stand_first_and_tied_ones_too():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 8)
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
            self.again = self.one
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.table.weight

    assert names(Decoder()) == ["one.weight", "two.weight"]


def test_attention_and_hugging_face_layers_are_known_by_their_form():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=8,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    gpt = transformers.GPT2LMHeadModel(config)
    found = prunable(gpt)
    assert len(found) == 8
    up = next(weight for weight in found if weight.name.endswith("c_fc.weight"))
    assert (up.inputs, up.width) == (0, 16)
    pruned(gpt, Sparsity(to="2:4"))
    weight = gpt.transformer.h[0].mlp.c_fc.weight.detach()
    assert ((weight.T.reshape(-1, 4) != 0).sum(dim=1) == 2).all()
    encoder = nn.Sequential(nn.Linear(4, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 2))
    assert names(encoder) == ["1.in_proj_weight", "1.out_proj.weight"]


def test_layers_that_do_not_divide_are_left_whole_unless_named():
    module = network(4, 6, 8, 8, 2)
    assert names(module, group=4) == ["2.weight"]
    with pytest.raises(ModelError, match="groups of 4 inputs must divide a layer, but `1` has 6"):
        prunable(module, layers=("1", "2"), group=4)
    with pytest.raises(ModelError, match="no layer with inputs in groups of 4"):
        prunable(network(4, 6, 6, 2), group=4)


def test_a_pattern_without_a_layer_and_a_network_without_layers_are_refused():
    with pytest.raises(ModelError, match=r"`stage\.\*` names none: there are `0`, `1`, `2`"):
        prunable(network(4, 8, 8, 2), layers=("stage.*",))
    with pytest.raises(ModelError, match=r"between its first and its last .* \(2 in all\)"):
        prunable(network(4, 8, 2))


# --- the description -----------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [Sparsity(to=0.8), Sparsity(to="2:4", layers=("a.*", "b"))])
def test_a_description_survives_json(sparsity):
    assert Sparsity.from_data(json.loads(json.dumps(sparsity.to_data()))) == sparsity


def test_a_few_plain_fields_are_enough():
    assert Sparsity.from_data({"to": 0.5, "begin": 0, "end": 1}) == Sparsity(to=0.5, end=1.0)
    with pytest.raises(ValueError, match="did you mean `schedule`"):
        Sparsity.from_data({"to": 0.5, "shedule": "once"})


def test_it_is_told_in_a_line():
    module = network(4, 8, 8, 2)
    line = "1 layers, 64 weights that can be pruned; "
    assert Masks(module, Sparsity(to=0.8)).lines() == [line + "80.0% of them become zero (cubic)"]
    told = Masks(module, Sparsity(to="2:4")).lines()
    assert told == [line + "all but 2:4 of every group become zero (cubic)"]


@pytest.mark.parametrize(("options", "law"), [
    ({"to": 0.0}, "0 < to <= 0.99"), ({"to": 1.0}, "0 < to <= 0.99"),
    ({"to": "4:2"}, "0 < N < M"), ({"to": "half"}, "a pattern is `N:M`"),
    ({"to": "4:4"}, "0 < N < M"), ({"to": 0.5, "begin": 0.8}, "begin < end"),
    ({"to": 0.5, "end": 1.5}, "end <= 1"), ({"to": 0.5, "every": 0}, "every >= 1"),
    ({"to": 0.5, "schedule": "slow"}, "`schedule` must be one of cubic, linear, once"),
    ({"to": 0.5, "scope": "all"}, "`scope` must be one of network, layer"),
])  # fmt: skip
def test_what_means_nothing_is_refused(options, law, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=law):
        Sparsity(**options)
