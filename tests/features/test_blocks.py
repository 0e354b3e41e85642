"""Repeated blocks: found in the usual networks, and paired."""

from collections import OrderedDict

import pytest
from torch import nn

from understudy import models
from understudy.errors import ModelError
from understudy.features.blocks import blocks, pair

IMAGE = {"channels": 1, "width": 10}
SIZE = {"height": 8, "image_width": 8}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)


def holding(**parts):
    return nn.Sequential(OrderedDict(parts))


def convolutions(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3), nn.BatchNorm2d(after), nn.ReLU())


def listed(count):
    return nn.ModuleList(Block() for _ in range(count))


def transformer():
    """Written as Hugging Face writes them: two single layers of one class stand further out."""
    encoder = nn.Module()
    encoder.layer = listed(3)
    return holding(embed=nn.Linear(4, 4), encoder=encoder, classifier=nn.Linear(4, 2))


def torchvision():
    stages = {f"layer{i}": nn.Sequential(Block(), Block()) for i in range(1, 5)}
    return holding(conv1=nn.Conv2d(1, 4, 3), bn1=nn.BatchNorm2d(4), **stages, fc=nn.Linear(4, 2))


def staged():
    """The stem and the list of stages are both sequences, but not two of a kind."""
    stages = nn.Sequential(*(convolutions(4, 4) for _ in range(3)))
    return holding(stem=convolutions(1, 4), stages=stages, head=nn.Linear(4, 2))


def vgg():
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU())
    classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return holding(features=features, classifier=classifier)


FOUND = {
    "resnet": (lambda: models.CATALOGUE["resnet"](**IMAGE, depth=14, base=4),
               ("stages.0", "stages.1", "stages.2")),
    "vit": (lambda: models.CATALOGUE["vit"](**IMAGE, **SIZE, patch=4, dim=8, depth=3, heads=2),
            ("blocks.0", "blocks.1", "blocks.2")),
    "convnet": (lambda: models.CATALOGUE["convnet"](**IMAGE, **SIZE, filters=[4, 8], hidden=8),
                ("body.0", "body.3")),
    "mlp": (lambda: models.CATALOGUE["mlp"](inputs=4, width=2, hidden=[8, 8]),
            ("body.0", "body.3")),
    "transformer": (transformer, ("encoder.layer.0", "encoder.layer.1", "encoder.layer.2")),
    "torchvision": (torchvision, ("layer1", "layer2", "layer3", "layer4")),
    "staged": (staged, ("stages.0", "stages.1", "stages.2")),
    "vgg": (vgg, ("features.0", "features.2")),
    "two layers": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), ("0",)),
    "nothing twice": (lambda: holding(embed=nn.Embedding(3, 4), mix=nn.Linear(4, 4),
                                      norm=nn.LayerNorm(4)), ("embed", "mix")),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_the_blocks_of_a_network(name):
    make, expected = FOUND[name]
    assert blocks(make()) == expected


def test_the_layer_that_answers_is_no_block():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert blocks(net) == ("0", "1")
    sequences = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)]
    assert blocks(nn.Sequential(*sequences)) == ("0", "1")


def test_the_blocks_are_modules_that_run_not_lists_of_them():
    net = holding(one=listed(2), two=listed(2), head=nn.Linear(4, 2))
    assert not {"one", "two"} & set(blocks(net))


@pytest.mark.parametrize("net", [nn.Linear(4, 2), nn.Sequential(nn.ReLU(), nn.Linear(4, 2))])
def test_a_network_without_blocks_is_told_to_name_layers(net):
    with pytest.raises(ModelError, match=r"no repeated blocks to pair: name the layers, `layers:"):
        blocks(net)


def names(letter, count):
    return [f"{letter}{i}" for i in range(1, count + 1)]


@pytest.mark.parametrize(("own", "goal", "how", "expected"), [
    (2, 6, "evenly", "s1t3 s2t6"),
    (3, 3, "evenly", "s1t1 s2t2 s3t3"),
    (3, 4, "evenly", "s1t1 s2t2 s3t4"),
    (4, 2, "evenly", "s2t1 s4t2"),
    (1, 5, "evenly", "s1t5"),
    (2, 6, "end", "s1t5 s2t6"),
    (4, 2, "end", "s3t1 s4t2"),
])  # fmt: skip
def test_pairs(own, goal, how, expected):
    found = pair(names("s", own), names("t", goal), how=how)
    assert " ".join("".join(p) for p in found) == expected


@pytest.mark.parametrize(("which", "expected"), [
    ("all", 4), ("middle", ("s2", "t2")), ("last", ("s4", "t4")),
])  # fmt: skip
def test_which_of_the_pairs(which, expected):
    found = pair(names("s", 4), names("t", 4), which=which)
    assert (len(found) if which == "all" else found) == (
        expected if which == "all" else (expected,)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_middle_is_one_pair_of_any_number(count):
    (found,) = pair(names("s", count), names("t", count), which="middle")
    assert found == (f"s{(count + 1) // 2}", f"t{(count + 1) // 2}")


def test_provenance_is_followed_where_there_is_one():
    came = {"s1": "t2", "s2": "t5"}
    assert pair([], [], how="provenance", provenance=came) == (("s1", "t2"), ("s2", "t5"))
    for nothing in (None, {}):
        with pytest.raises(ModelError, match=r"not cut from its teacher.*pair `evenly`"):
            pair(["s1"], ["t1"], how="provenance", provenance=nothing)


def test_nothing_cannot_be_paired():
    with pytest.raises(ModelError, match="no blocks to pair"):
        pair([], ["t1"])


def test_where_an_activation_writes_over_a_layer_it_is_read_instead():
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU()]
    net = holding(features=nn.Sequential(*layers), head=nn.Linear(4, 2))
    assert blocks(net) == ("features.1", "features.2")
