"""What an adapter is, and what adapters refuse in one wording."""

import pytest
import torch
from torch import nn

from understudy.errors import ModelError, TrainingError
from understudy.features.form import (
    Adapted,
    Adapter,
    check_kinds,
    check_least,
    check_normalised,
    check_pairs,
    check_share,
    kind_of,
    pooled,
    width_of,
)


def test_a_module_is_an_adapter_and_a_number_is_none():
    assert isinstance(nn.Identity(), Adapter)
    assert not isinstance(3, Adapter)


def test_what_comes_out_has_no_values_unless_they_are_given():
    assert Adapted(student=[], teacher=[]).values == {}


@pytest.mark.parametrize(
    ("shape", "kind", "width"), [((5,), "vector", 5), ((7, 5), "tokens", 5), ((5, 2, 3), "map", 5)]
)
def test_the_number_of_axes_says_the_kind(shape, kind, width):
    assert kind_of(shape) == kind
    assert width_of(shape) == width


@pytest.mark.parametrize("shape", [(), (1, 2, 3, 4), (3, 0), (0,)])
def test_other_shapes_are_no_features(shape):
    with pytest.raises(ModelError, match="name another layer"):
        kind_of(shape)


def test_as_many_layers_on_both_sides_and_one_at_least():
    check_pairs([(3,)], [(4,)])
    with pytest.raises(ModelError, match="2 and 1 layers"):
        check_pairs([(3,), (3,)], [(4,)])
    with pytest.raises(ModelError, match="0 and 0 layers"):
        check_pairs([], [])


def test_a_pair_of_two_kinds_is_refused_with_both_shapes():
    with pytest.raises(ModelError, match=r"\[3, 4, 5\] and a teacher of \[7\]: do that"):
        check_kinds("x", (3, 4, 5), (7,), takes=("map", "vector"), remedy="do that")
    with pytest.raises(ModelError, match="takes pairs of maps"):
        check_kinds("x", (3,), (7,), takes=("map",), remedy="do that")
    assert check_kinds("x", (3,), (7,), takes=("map", "vector"), remedy="") == "vector"


def test_one_row_is_refused_only_while_training():
    module = nn.Identity()
    check_normalised(module, [torch.zeros(2, 3)])
    check_normalised(module.eval(), [torch.zeros(1, 3)])
    with pytest.raises(TrainingError, match="the batch has 1"):
        check_normalised(module.train(), [torch.zeros(2, 3), torch.zeros(1, 3)])


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_is_between_zero_and_one(value):
    with pytest.raises(ModelError, match="0 < ratio < 1"):
        check_share("ratio", value)
    check_share("ratio", 0.5)


def test_a_size_is_one_at_least():
    check_least("width", 1)
    with pytest.raises(ModelError, match="width=0"):
        check_least("width", 0)


def test_one_vector_per_row_is_the_mean_over_its_places():
    maps = torch.arange(12.0).reshape(1, 2, 2, 3)
    assert pooled(maps).tolist() == [[2.5, 8.5]]
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert pooled(tokens).tolist() == [[2.0, 4.0]]
    assert pooled(tokens[:, 0]).tolist() == [[1.0, 2.0]]
