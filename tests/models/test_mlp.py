"""The multilayer perceptron."""

import pytest
import torch

from understudy.models import MLP


def test_its_size_is_what_paper_and_pencil_say(count):
    layers = (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)
    assert count(MLP(inputs=64, width=10, hidden=[32, 16])) == layers == 2778


def test_without_hidden_layers_it_is_a_linear_model():
    network, rows = MLP(inputs=6, width=3, hidden=[]), torch.randn(4, 6)
    torch.testing.assert_close(network(rows), rows @ network.head.weight.T + network.head.bias)


def test_it_is_what_numpy_makes_of_its_weights():
    network = MLP(inputs=6, width=3, hidden=[5, 4]).double()
    rows = torch.randn(7, 6, dtype=torch.float64)
    first, first_bias, second, second_bias, last, last_bias = (
        weights.detach().numpy() for weights in network.parameters()
    )
    hidden = (rows.numpy() @ first.T + first_bias).clip(min=0)
    hidden = (hidden @ second.T + second_bias).clip(min=0)
    expected = torch.tensor(hidden @ last.T + last_bias)
    torch.testing.assert_close(network(rows).detach(), expected)


def test_images_and_flat_rows_are_the_same_to_it():
    network, images = MLP(inputs=12, width=2, hidden=[3]), torch.randn(5, 3, 2, 2)
    assert torch.equal(network(images), network(images.flatten(1)))


def test_rows_of_another_length_are_refused_with_both_lengths():
    network = MLP(inputs=12, width=2, hidden=[3])
    with pytest.raises(ValueError, match=r"must have 12 numbers.* got inputs of shape \(5, 3, 3\)"):
        network(torch.zeros(5, 3, 3))


def test_the_callers_list_of_layers_is_left_alone():
    hidden = [4, 3]
    MLP(inputs=2, width=2, hidden=hidden)
    MLP(inputs=2, width=2, hidden=(4, 3))
    assert hidden == [4, 3]
