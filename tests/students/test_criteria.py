import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.students.width.answers import answer
from understudy.students.width.criteria import Part, Site, axes, by_channel, scores

EVERY = ("magnitude", "taylor", "activation", "gradient")


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten()
    ).double()
    net[1].running_mean.uniform_(-1, 1)
    return net.eval()


def rows(count=10):
    return torch.randn(
        count, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def site(units=4, sections=1):
    own = torch.arange(units)[:, None]
    return Site(
        name="0",
        kind="channels",
        units=units,
        sections=sections,
        parts=(
            Part(path="0", side="out", channels=own),
            Part(path="1", side="out", channels=own),
            Part(path="3", side="in", channels=own),
        ),
    )


def only(path, side):
    whole = site()
    parts = tuple(p for p in whole.parts if (p.path, p.side) == (path, side))
    return Site(name="0", kind="channels", units=4, parts=parts)


def test_magnitude_is_the_norm_of_all_weights_of_a_unit():
    net = network()
    found = scores(net, rows(), [site()], by="magnitude")[0]
    for unit in range(4):
        weights = torch.cat(
            [
                net[0].weight[unit].flatten(),
                net[0].bias[unit : unit + 1],
                net[1].weight[unit : unit + 1],
                net[1].bias[unit : unit + 1],
                net[3].weight[:, unit].flatten(),
            ]
        )
        assert found[unit].item() == pytest.approx(weights.norm().item(), rel=1e-12)


def test_activation_is_what_reaches_the_layer_that_takes_the_unit():
    net, given = network(), rows()
    maps = net[2](net[1](net[0](given)))
    wanted = maps.abs().mean(dim=(0, 2, 3))
    for batch_size in (3, 64):
        found = scores(net, given, [site()], by="activation", batch_size=batch_size)[0]
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-12, atol=0)


def gated_slopes(net, given, loss):
    """The loss's derivative by a factor on each unit, at 1."""
    gate = torch.ones(4, dtype=torch.float64, requires_grad=True)
    maps = net[2](net[1](net[0](given))) * gate[:, None, None]
    return torch.autograd.grad(loss(net[4](net[3](maps))), gate)[0]


def test_taylor_is_the_first_order_change_when_the_unit_goes():
    net, given = network(), rows()
    wanted = gated_slopes(net, given, lambda out: out.square().sum(1).mean() / 2).abs()
    for path, side in (("3", "in"), ("1", "out")):
        found = scores(net, given, [only(path, side)], by="taylor")[0]
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_taylor_with_labels_is_of_the_cross_entropy_of_labelled_rows():
    net, given = network(), rows()
    labels = torch.tensor([0, 1, 2, -1, 3, -1, 5, 11, 4, 2])
    known = labels >= 0
    wanted = gated_slopes(net, given[known], lambda out: F.cross_entropy(out, labels[known])).abs()
    found = scores(net, given, [only("3", "in")], by="taylor", labels=labels)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_batches_are_averaged_in_squares():
    net, given = network(), rows(8)
    halves = [scores(net, half, [site()], by="taylor")[0] for half in given.split(4)]
    found = scores(net, given, [site()], by="taylor", batch_size=4)[0]
    wanted = (halves[0].square() / 2 + halves[1].square() / 2).sqrt()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


def test_gradient_is_the_norm_of_the_gradient():
    net, given = network(), rows()
    (net(given).square().sum(1).mean() / 2).backward()
    wanted = net[3].weight.grad.square().sum(dim=(0, 2, 3)).sqrt()
    found = scores(net, given, [only("3", "in")], by="gradient")[0]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


def test_values_as_labels_take_the_squared_error_and_leave_out_what_is_not_known():
    net, given = network(), rows()
    goal = torch.zeros(10, 12, dtype=torch.float64)
    goal[3] = torch.nan
    found = scores(net, given, [only("3", "in")], by="gradient", labels=goal)[0]
    kept = torch.cat([given[:3], given[4:]])
    net(kept).square().mean().backward()
    wanted = net[3].weight.grad.square().sum(dim=(0, 2, 3)).sqrt()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("by", EVERY)
def test_a_unit_that_is_zero_everywhere_scores_zero(by):
    net = network()
    with torch.no_grad():
        net[0].weight[2] = 0
        net[0].bias[2] = 0
        net[1].weight[2] = 0
        net[1].bias[2] = 0
        net[3].weight[:, 2] = 0
    found = scores(net, rows(), [site()], by=by)[0]
    assert found[2] == 0
    assert (found[[0, 1, 3]] > 0).all()


@pytest.mark.parametrize("by", [*EVERY, "random"])
def test_nothing_of_the_network_or_the_process_changes(by):
    net, given = network(), rows()
    net.train()
    net[0].weight.requires_grad_(False)
    before = {name: values.clone() for name, values in net.state_dict().items()}
    random = torch.get_rng_state()
    one, two = (scores(net, given, [site()], by=by, seed=3)[0] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], values) for name, values in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert all(m.training for m in net.modules())
    assert not net[0].weight.requires_grad
    assert not net[3]._forward_pre_hooks


def test_random_scores_follow_the_seed():
    one, two = (scores(network(), rows(), [site()], by="random", seed=n)[0] for n in (0, 1))
    assert not torch.equal(one, two)


def test_channels_of_a_grouped_convolution_are_those_of_its_groups():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 4, 3, groups=2, bias=False)
    given = torch.randn(1, 6, 5, 5)
    each = by_channel(layer, layer.weight, "in", axes(layer, "in")["weight"])
    assert each.shape == (6, 2 * 9)
    for channel in range(6):
        alone = torch.zeros_like(given)
        alone[:, channel] = given[:, channel]
        # A convolution is linear: what a channel adds is made by its own weights and no others.
        group = channel // 3
        own = each[channel].reshape(2, 1, 3, 3)
        wanted = F.conv2d(given[:, channel : channel + 1], own)
        torch.testing.assert_close(layer(alone)[:, 2 * group : 2 * group + 2], wanted)


def test_labels_must_fit():
    net, given = network(), rows()
    with pytest.raises(ModelError, match="10 rows and 9 labels"):
        scores(net, given, [site()], by="taylor", labels=torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ModelError, match=r"one class of each answer.*from 12 to 12"):
        scores(net, given, [site()], by="taylor", labels=torch.full((10,), 12))
    with pytest.raises(ModelError, match="shape of the answer"):
        scores(net, given, [site()], by="taylor", labels=torch.zeros(10, 3))


@pytest.mark.parametrize("by", EVERY)
def test_weights_that_are_not_finite_are_refused(by):
    net = network()
    with torch.no_grad():
        net[0].weight[1, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match="must be finite, but those of 0 are not"):
        scores(net, rows(), [site()], by=by)


def test_the_answer_of_many_is_the_one_that_is_meant():
    logits, states = torch.zeros(2, 3), torch.zeros(2, 4, 5)
    assert answer({"loss": torch.zeros(()), "logits": logits}) is logits
    assert answer({"last_hidden_state": states, "pooler_output": logits}) is states
    assert answer(((logits, states),)) is logits
    with pytest.raises(ModelError, match="must answer with a tensor"):
        answer("yes")


def test_a_label_below_minus_one_is_no_class():
    net, given = nn.Linear(4, 3), torch.randn(6, 4)
    with pytest.raises(ModelError, match=r"\(-1: none\), but got labels \(6,\) from -5 to -5"):
        scores(net, given, [], by="taylor", labels=torch.full((6,), -5))
