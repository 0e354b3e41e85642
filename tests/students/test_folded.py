import torch
from torch import nn
from torch.nn import functional as F

from understudy.students.quantized.folded import (
    as_found,
    fold_norms,
    foldable,
    rounds_output,
    watch,
)


def settled(network, rows):
    with torch.no_grad():
        for _ in range(3):
            network(rows)
    return network.eval()


def folded(network, rows):
    fold_norms(network, foldable(network, watch(network, rows)))
    return network


def test_a_normalisation_goes_into_the_layer_before_it():
    torch.manual_seed(0)
    rows = torch.randn(16, 3, 6, 6)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 5), nn.BatchNorm1d(5, affine=False),
    )  # fmt: skip
    expected = settled(net, rows)(rows)
    found = folded(net, rows)
    torch.testing.assert_close(found(rows), expected)
    assert [type(one).__name__ for one in found] == [
        "Conv2d", "Identity", "ReLU", "Flatten", "Linear", "Identity",
    ]  # fmt: skip


def test_what_others_read_too_is_not_folded():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            maps = self.conv(x)
            return self.norm(maps) + maps

    rows = torch.randn(8, 3, 4, 4)
    net = settled(Beside(), rows)
    expected = net(rows)
    found = folded(net, rows)
    assert isinstance(found.norm, nn.BatchNorm2d)
    torch.testing.assert_close(found(rows), expected)


def test_what_is_used_twice_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.two(self.conv(self.one(self.conv(x))))

    rows = torch.randn(8, 3, 4, 4)
    net = settled(Twice(), rows)
    expected = net(rows)
    torch.testing.assert_close(folded(net, rows)(rows), expected)


def test_a_convolution_before_a_relu_is_rounded_behind_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.relu(self.a(x))
            y = F.relu(self.b(x)) + x
            return self.d(F.relu(y + self.c(y)))

    net = Net()
    seen = watch(net, torch.randn(2, 3, 4, 4))
    rounded = {name: rounds_output(getattr(net, name), seen) for name in "abcd"}
    assert rounded == {"a": False, "b": False, "c": True, "d": False}
    assert not seen.float_sums


def test_networks_with_layer_normalisation_or_attention_keep_float_sums():
    encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dropout=0.0)
    normed = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    for net in (encoder, normed):
        seen = watch(net, torch.randn(2, 3, 8))
        assert seen.float_sums
        linear = [one for one in net.modules() if isinstance(one, nn.Linear)]
        assert not any(rounds_output(one, seen) for one in linear)


def test_no_hook_stays_and_modes_and_random_state_are_put_back():
    net = nn.Sequential(nn.Dropout(), nn.Linear(3, 3)).train()
    net[1].eval()
    state = torch.get_rng_state()
    with as_found(net):
        assert not net[0].training
        watch(net, torch.ones(2, 3))
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert [one.training for one in net.modules()] == [True, True, False]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in net.modules())
