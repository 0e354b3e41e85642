"""The heads and hidden units of transformers, found by the names that such layers have."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.features.attention_layers import attention_layers
from understudy.students.width.criteria import Part, Site
from understudy.students.width.plan import channels_of

# Where attention writes its answer, from the module that holds queries, keys and values.
_OUTPUTS = ("out_proj", "o_proj", "out_lin", "proj", "c_proj", "Wo", "to_out.0", "out", "o")


# The layers that give a block's hidden units, and the one that takes them.
_FORWARD = (
    (("gate", "up"), "down"),
    (("up",), "down"),
    (("gate_proj", "up_proj"), "down_proj"),
    (("w1", "w3"), "w2"),
    (("c_fc",), "c_proj"),
    (("fc1",), "fc2"),
    (("lin1",), "lin2"),
    (("linear1",), "linear2"),
    (("intermediate.dense",), "output.dense"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
    (("gate_up_proj",), "down_proj"),
    (("Wi",), "Wo"),
)


_GATED = ("gate_up_proj", "Wi")


_HEADS = ("heads", "num_heads", "num_attention_heads", "n_heads", "n_head")


_HEAD_SIZES = ("all_head_size", "split_size")


_HIDDEN = ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim")


def unconfigured(site: Site) -> Site:
    """A site whose cut no configuration tells of."""
    counts = tuple(one for one in site.counts if not one[1].startswith("config."))
    other = None if site.other is None else unconfigured(site.other)
    return replace(site, counts=counts, other=other)


def attention(network: nn.Module) -> Iterator[Site]:
    """The heads of every attention that has layers of known names and a known number of heads."""
    for path, _ in network.named_modules():
        try:
            layers = attention_layers(network, path)
        except ModelError:
            continue
        out = _output(network, path)
        if out is None or any(name.rpartition(".")[0] != path for name in layers.paths):
            continue
        given = [channels_of(network.get_submodule(name), "out") for name in layers.paths]
        heads, taken = layers.heads, channels_of(network.get_submodule(out), "in")
        size = taken // heads
        if layers.fused:
            if given[0] == 3 * taken and taken == heads * size:
                joined = torch.cat([_runs(heads, size, n * taken) for n in range(3)], dim=1)
                parts = {layers.paths[0]: joined}
                yield _heads(network, path, heads, parts, out, _runs(heads, size))
            continue
        groups = given[1] // max(size, 1)
        if taken != heads * size or given[0] != taken or not groups or heads % groups:
            continue
        query = {layers.paths[0]: _runs(heads, size)}
        apart = _heads(network, path, heads, query, out, _runs(heads, size), sections=groups)
        if groups == 1 and heads > 1:
            yield apart
            continue
        wide = _runs(groups, taken // groups)
        keys = dict.fromkeys(layers.paths[1:], _runs(groups, size))
        together = _heads(
            network, path, groups, {layers.paths[0]: wide, **keys}, out, wide,
            other=None if groups == heads else apart, each=heads // groups,
        )  # fmt: skip
        yield together


def _heads(
    network: nn.Module,
    path: str,
    units: int,
    given: Mapping[str, Tensor],
    out: str,
    taken: Tensor,
    *,
    sections: int = 1,
    other: Site | None = None,
    each: int = 1,
) -> Site:
    names = [*_HEADS, *_HEAD_SIZES]
    # Removing queries alone changes how many share their keys; whole groups change how many
    # groups there are.
    names += ["num_key_value_heads", "kv_heads"] if len(given) > 1 else ["num_key_value_groups"]
    counts = [(path, n) for n in names if isinstance(vars(network.get_submodule(path)).get(n), int)]
    holder, config = _config(network, path)
    counts += [
        (holder, f"config.{name}")
        for name in ("num_attention_heads", "num_key_value_heads")
        if name in names and isinstance(getattr(config, name, None), int)
    ]
    parts = [Part(path=name, side="out", channels=runs) for name, runs in given.items()]
    return Site(
        name=path,
        kind="heads",
        units=units,
        parts=(*parts, Part(path=out, side="in", channels=taken)),
        sections=sections,
        counts=tuple(counts),
        other=other,
        each=each,
    )


def _output(network: nn.Module, path: str) -> str | None:
    parent = path.rpartition(".")[0]
    choices = [f"{path}.{name}" if path else name for name in _OUTPUTS]
    # BERT's attention keeps its output beside the module of queries, keys and values.
    choices.append(f"{parent}.output.dense" if parent else "output.dense")
    for choice in choices:
        if _holds(network, choice):
            return choice
    return None


def feed_forward(network: nn.Module) -> Iterator[Site]:
    """The hidden units of every feed-forward pair, or gated triple, of known names."""
    for path, module in network.named_modules():
        at = f"{path}." if path else ""
        told: set[str] = set()
        for ups, last in (*_FORWARD, *_in_sequence(module)):
            givers, taker = [at + name for name in ups], at + last
            # Where there is a gate beside `up`, the two go together.
            if taker in told or not all(_holds(network, name) for name in (*givers, taker)):
                continue
            told.add(taker)
            units = channels_of(network.get_submodule(taker), "in")
            given = sum(channels_of(network.get_submodule(name), "out") for name in givers)
            # One layer may give all gates and then all units.
            gated = len(givers) == 1 and given == 2 * units and ups[0] in _GATED
            if not gated and given != len(givers) * units:
                continue
            runs = _runs(units, 1)
            both = torch.cat([runs, runs + units], dim=1) if gated else runs
            holder, config = _config(network, path)
            counts = [
                (holder, f"config.{name}")
                for name in _HIDDEN
                if getattr(config, name, None) == units or (name == "n_inner" and _no_inner(config))
            ]
            if getattr(network.get_submodule(path), "intermediate_size", None) == units:
                counts.append((path, "intermediate_size"))
            parts = [Part(path=name, side="out", channels=both) for name in givers]
            yield Site(
                name=givers[-1],
                kind="units",
                units=units,
                parts=(*parts, Part(path=taker, side="in", channels=runs)),
                counts=tuple(counts),
            )


def _in_sequence(module: nn.Module) -> list[tuple[tuple[str], str]]:
    """The two linear layers of a sequence with nothing but activations and dropout around them."""
    own = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    if not own:
        return []
    linear = [name for name, child in module.named_children() if isinstance(child, nn.Linear)]
    between = [child for child in module.children() if not isinstance(child, nn.Linear)]
    if len(linear) != 2 or not all(_pointwise(child) for child in between):
        return []
    return [((linear[0],), linear[1])]


def _pointwise(layer: nn.Module) -> bool:
    rooms = ("torch.nn.modules.activation", "torch.nn.modules.dropout")
    mixing = (nn.GLU, nn.Softmax, nn.LogSoftmax, nn.PReLU, nn.MultiheadAttention)
    return type(layer).__module__ in rooms and not isinstance(layer, mixing)


def _no_inner(config: Any) -> bool:
    return hasattr(config, "n_inner") and config.n_inner is None


def _config(network: nn.Module, path: str) -> tuple[str, Any]:
    """The configuration that a module goes by, and the first module that holds it."""
    parts = path.split(".")
    for length in range(len(parts), -1, -1):
        config = getattr(network.get_submodule(".".join(parts[:length])), "config", None)
        # A class is shared with the network that is cut, so nothing may be written into it.
        if config is not None and not isinstance(config, type):
            return next(
                (n, config)
                for n, m in network.named_modules()
                if getattr(m, "config", None) is config
            )
    return path, None


def _holds(network: nn.Module, path: str) -> bool:
    try:
        layer = network.get_submodule(path)
    except AttributeError:
        return False
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def _runs(units: int, size: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + units * size).reshape(units, size)


def sharing_layers(network: nn.Module) -> set[str]:
    """Layers that have a weight in common with another layer."""
    owners: dict[int, list[str]] = defaultdict(list)
    for path, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append(path)
    return {path for paths in owners.values() if len(paths) > 1 for path in paths}


def is_within(path: str, protect: Sequence[str]) -> bool:
    """Whether a path is one of some modules, or inside one."""
    return any(path == one or path.startswith(f"{one}.") for one in protect)
