"""The tutorials' convolutional network."""

import pytest
import torch

from understudy.models import ConvNet


def test_its_size_is_what_paper_and_pencil_say(count):
    first, second = 1 * 32 * 9 + 32, 32 * 64 * 9 + 64
    hidden, head = 64 * 7 * 7 * 128 + 128, 128 * 10 + 10
    network = ConvNet(channels=1, height=28, image_width=28, width=10)
    assert count(network) == first + second + hidden + head == 421_642


@pytest.mark.parametrize(("height", "image_width"), [(8, 8), (9, 13), (4, 31)])
def test_sides_that_do_not_halve_evenly_are_rounded_down(height, image_width, count):
    network = ConvNet(
        channels=3, height=height, image_width=image_width, width=2, filters=[4, 5], hidden=6
    )
    pooled = 5 * (height // 2 // 2) * (image_width // 2 // 2)
    assert network.hidden[0].in_features == pooled
    assert network(torch.zeros(2, 3, height, image_width)).shape == (2, 2)


def test_each_filter_is_followed_by_relu_and_a_pool_that_keeps_the_largest():
    network = ConvNet(channels=1, height=2, image_width=2, width=1, filters=[1], hidden=1)
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    with torch.no_grad():
        network.body[0].weight[0, 0, 1, 1] = 1.0  # the convolution copies its image
        network.hidden[0].weight.fill_(1.0)
        network.head.weight.fill_(1.0)
    images = torch.tensor([[[[3.0, -9.0], [5.0, 4.0]]], [[[-1.0, -2.0], [-3.0, -4.0]]]])
    assert network(images).flatten().tolist() == [5.0, 0.0]


def test_an_image_too_small_for_its_poolings_is_refused_with_the_most_there_may_be():
    law = (
        r"`min\(height, image_width\) >= 2 \*\* len\(filters\)` must hold, but got height=9, "
        r"image_width=7, filters=\[4, 4, 4\]: use at most 2 filters"
    )
    with pytest.raises(ValueError, match=law):
        ConvNet(channels=1, height=9, image_width=7, width=2, filters=[4, 4, 4])
    ConvNet(channels=1, height=9, image_width=7, width=2, filters=[4, 4])


def test_images_of_another_size_are_refused_with_both_sizes():
    network = ConvNet(channels=1, height=8, image_width=8, width=2)
    law = r"shape \(1, 8, 8\), as the network was built, but got inputs of shape \(5, 1, 9, 8\)"
    with pytest.raises(ValueError, match=law):
        network(torch.zeros(5, 1, 9, 8))
