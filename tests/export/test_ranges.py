import json

import numpy as np
import onnx

from understudy.export.ranges import LearnedRange, range_overrides, tensor_ranges, weight_mark


def layers(by_hand, *weights):
    """A chain of products, one per weight."""
    names = ["rows", *(f"hidden{n}" for n in range(len(weights) - 1)), "output"]
    nodes = [("MatMul", [names[n], f"w{n}"], names[n + 1]) for n in range(len(weights))]
    path = by_hand(
        weights[0].shape[0], nodes, {f"w{n}": weight for n, weight in enumerate(weights)}
    )
    return onnx.load(path).graph


def test_a_mark_tells_numbers_and_shapes_apart():
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert weight_mark(weight) == weight_mark(weight.copy(order="F"))
    others = [weight.T, weight.reshape(3, 2), weight + np.float32(1e-6), -weight]
    assert len({weight_mark(one) for one in [weight, *others]}) == 5


def test_a_layer_is_found_by_its_weight_also_where_that_is_turned(by_hand):
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=size).astype(np.float32) for size in ((4, 3), (3, 2)))
    graph = layers(by_hand, first, second)
    learned = [
        LearnedRange(weight=weight_mark(first.T), inputs=(-1.0, 2.0), outputs=(-3.0, 4.0)),
        LearnedRange(weight=weight_mark(second), inputs=(-5.0, 1.0)),
    ]
    # The two layers share the tensor between them, so it gets a range that holds both.
    assert tensor_ranges(graph, learned) == {"rows": (-1.0, 2.0), "hidden0": (-5.0, 4.0)}


def test_layers_of_another_network_are_not_found(by_hand):
    graph = layers(by_hand, np.eye(3, dtype=np.float32))
    other = LearnedRange(weight=weight_mark(2 * np.eye(3, dtype=np.float32)), inputs=(0.0, 1.0))
    assert tensor_ranges(graph, [other]) == {}


def test_equal_layers_get_the_range_that_holds_all_of_theirs(by_hand):
    weight = np.eye(3, dtype=np.float32)
    mark = weight_mark(weight)
    learned = [
        LearnedRange(weight=mark, inputs=(-1.0, 1.0)),
        LearnedRange(weight=mark, inputs=(0.0, 7.0)),
    ]
    graph = layers(by_hand, weight)
    assert tensor_ranges(graph, learned) == {"rows": (-1.0, 7.0)}


def test_ranges_become_overrides_of_32_bits():
    (found,) = range_overrides({"a": (-0.1, 3.0)})["a"]
    assert found == {"rmin": np.float32(-0.1), "rmax": np.float32(3.0)}
    assert {type(value) for value in found.values()} == {np.float32}


def test_a_learned_range_survives_json():
    for outputs in (None, (-1.5, 0.25)):
        one = LearnedRange(weight="ab", inputs=(0.1, 2.0), outputs=outputs)
        assert LearnedRange.from_data(json.loads(json.dumps(one.to_data()))) == one
