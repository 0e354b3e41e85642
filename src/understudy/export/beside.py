"""The files in which a large ONNX model keeps its weights, beside the one with its graph."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx


def weights_beside(path: Path) -> list[Path]:
    """The files that an ONNX file reads its weights from, those that are there, sorted.

    Their names are free: PyTorch ends them in `.data`, others in `_data`, and some write one for
    every weight.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's own, of several kinds: whoever loads it says what is wrong
        return []
    every = [*_tensors(model.graph), *_inside(n for f in model.functions for n in f.node)]
    named = {entry.value for t in every for entry in t.external_data if entry.key == "location"}
    found = {path.parent / name for name in named}
    return sorted(place for place in found if place.is_file())


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _inside(graph.node)


def _inside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)
