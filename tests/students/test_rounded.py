import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from understudy.students.quantized.rounded import (
    Rounded,
    RoundedLinear,
    RunningRange,
    plain_form,
    rounded_channels,
    rounded_form,
)


def test_activations_become_one_of_256_steps_with_zero_among_them():
    one = RunningRange(low=-1.0, high=3.0, share=0.5).eval()
    values = torch.linspace(-2, 4, 999)
    held = one(values)
    assert held.unique().numel() == 256
    assert one(torch.zeros(1)).item() == 0
    inside = (values >= -1) & (values <= 3)
    assert (held - values)[inside].abs().max() <= 4 / 255
    assert held.min() >= -1 - 4 / 255
    assert held.max() <= 3 + 4 / 255


def test_the_gradient_passes_inside_the_range_and_stops_outside():
    values = torch.tensor([-5.0, -0.5, 0.3, 2.9, 9.0], requires_grad=True)
    RunningRange(low=-1.0, high=3.0, share=0.5).eval()(values).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_a_range_follows_training_batches_and_stands_still_in_evaluation():
    one = RunningRange(low=0.0, high=1.0, share=0.25)
    one(torch.tensor([-4.0, 5.0]))
    assert (one.low.item(), one.high.item()) == (-1.0, 2.0)
    one.eval()(torch.tensor([-40.0, 50.0]))
    assert one.bounds() == (-1.0, 2.0)


def test_the_type_of_the_numbers_is_kept():
    one = RunningRange(low=-1.0, high=1.0, share=0.1)
    assert one(torch.rand(4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@given(st.integers(0, 10_000), st.sampled_from([64, 127]), st.sampled_from([0, 1]))
def test_each_channel_is_whole_steps_of_its_own(seed, largest, axis):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 7, generator=generator) * torch.logspace(-3, 3, 7)
    weight.select(axis, 2).zero_()
    held = rounded_channels(weight, axis=axis, largest=largest)
    for channel, was in zip(held.unbind(axis), weight.unbind(axis), strict=True):
        step = was.abs().max() / largest
        assert (channel - was).abs().max() <= 0.5001 * step
        assert channel.unique().numel() <= 2 * largest + 1
    # A pruned weight stays exactly zero, and rounding again changes nothing.
    assert (held[weight == 0] == 0).all()
    torch.testing.assert_close(rounded_channels(held, axis=axis, largest=largest), held)


def test_only_layers_of_torch_itself_have_a_rounded_form():
    class Own(nn.Linear):
        def forward(self, input):
            return super().forward(input) * 2

    assert rounded_form(nn.Linear(2, 2)) is RoundedLinear
    assert rounded_form(Own(2, 2)) is None
    assert rounded_form(nn.ReLU()) is None
    assert issubclass(rounded_form(nn.Conv2d(1, 1, 1)), Rounded)


def test_the_former_class_is_known():
    layer = nn.Linear(2, 2)
    layer.__class__ = rounded_form(layer)
    assert plain_form(layer) is nn.Linear
