"""Which arguments of a network are its sizes, and what they are at another size."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from understudy.errors import ModelError, did_you_mean

# Names that our networks and Hugging Face's configs use.
WIDTHS = (
    *("base", "dim", "hidden", "filters", "hidden_size", "intermediate_size", "embedding_size"),
    *("d_model", "d_ff", "d_kv_inner", "n_embd", "n_inner", "hidden_dim", "embed_dim", "ffn_dim"),
    *("encoder_ffn_dim", "decoder_ffn_dim", "dim_feedforward"),
)
DEPTHS = ("depth", "num_hidden_layers", "n_layers", "n_layer", "num_layers")
# The heads that divide a width.
_HEADS: Mapping[str, tuple[str, ...]] = {
    "dim": ("heads", "n_heads", "num_heads"),
    "hidden_size": ("num_attention_heads", "num_heads"),
    "n_embd": ("n_head",),
    "d_model": ("num_heads", "nhead", "encoder_attention_heads", "decoder_attention_heads"),
    "embed_dim": ("num_heads",),
}
_KEYS = "num_key_value_heads"
_RATIO = "mlp_ratio"
# What is another width by its own name, where the two are equal.
_TWINS: Mapping[str, str] = {"pooler_hidden_size": "hidden_size"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Knobs:
    """The sizes of a network.

    Attributes:
        arguments: all of the factory's that are known.
        widths: numbers, or lists of numbers, that are scaled by one factor.
        depths: numbers of blocks.
        steps: how many steps the factor 1 has; 0 where there is no width.
    """

    arguments: Mapping[str, Any]
    widths: Mapping[str, Any] = field(default_factory=dict)
    depths: Mapping[str, int] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """How many steps there are up to the factor 1: those of the widest."""
        sizes = [size for value in self.widths.values() for size in _sizes(value)]
        sizes += [_inner(self.arguments)] if "dim" in self.widths else []
        return max((size // _grain(size) for size in sizes), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments that change."""
        heads = [n for w in self.widths for n in _heads_of(w, self.arguments)]
        return (*self.widths, *heads, *self.depths)

    def at(self, depth: int, step: int) -> dict[str, Any]:
        """The factory's arguments at so many blocks and so many steps."""
        made = dict(self.arguments)
        deepest = max(self.depths.values(), default=1)
        for name, value in self.depths.items():
            made[name] = max(1, -(-value * depth // deepest))
        if not self.steps or step == self.steps:
            return made
        factor = step / self.steps
        for name, value in self.widths.items():
            made[name] = _scaled(value, factor)
        for name in self.widths:
            made |= self._headed(name, factor)
        for name, of in _TWINS.items():
            if of in self.widths and self.arguments.get(name) == self.arguments[of]:
                made[name] = made[of]
        if "dim" in self.widths and _RATIO in made:
            made[_RATIO] = _ratio(_one(_inner(self.arguments), factor), made["dim"])
        return made

    def _headed(self, name: str, factor: float) -> dict[str, Any]:
        """A width whose heads keep their size, and those heads."""
        heads = _heads_of(name, self.arguments)
        if not heads:
            return {}
        full = self.arguments[heads[0]]
        keys = self.arguments.get(_KEYS)
        grouped = isinstance(keys, int) and 1 < keys < full
        group = full // keys if grouped else 1
        number = group * max(1, round(factor * full / group))
        made = {name: self.arguments[name] // full * number, **dict.fromkeys(heads, number)}
        if isinstance(keys, int) and keys > 1:
            made[_KEYS] = number // group
        return made


def knobs(
    factory: Callable[..., nn.Module], arguments: Mapping[str, Any], *, vary: Sequence[str]
) -> Knobs:
    """The sizes of what a factory makes.

    Raises:
        ModelError: `vary` names what is no size, none is known by its name, or heads do not divide
            the width they belong to.
    """
    known = _defaults(factory) | dict(arguments)
    able = [name for name, value in known.items() if _sizes(value)]
    for name in vary:
        if name not in able:
            raise ModelError(
                f"`vary` names `{name}`, which is no size of this network: "
                f"{did_you_mean(name, able)}"
            )
    heads = {name for names in _HEADS.values() for name in names} | {_KEYS}
    chosen = [n for n in vary if n not in heads] or [n for n in able if n in WIDTHS]
    if not chosen:
        raise ModelError(
            "no argument of this network is known as a width, so that nothing can be scaled: name "
            f"some of its own with `vary` ({', '.join(able) or 'it has no whole numbers'})"
        )
    widths = {name: known[name] for name in chosen if name not in DEPTHS}
    for name in widths:
        _check_heads(name, known)
    # Defaults that stay as they are need not be written down.
    extra = {n for w in widths for n in _heads_of(w, known)} | (
        {_RATIO} if "dim" in widths else set()
    )
    kept = {n: v for n, v in known.items() if n in arguments or n in chosen or n in extra}
    return Knobs(
        arguments=kept,
        widths=widths,
        depths={name: known[name] for name in chosen if name in DEPTHS},
    )


def _check_heads(name: str, known: Mapping[str, Any]) -> None:
    width = known[name]
    for heads in _heads_of(name, known):
        number, keys = known[heads], known.get(_KEYS)
        if width % number:
            raise ModelError(
                f"`{name} % {heads} == 0` must hold, but got {name}={width}, {heads}={number}"
            )
        if isinstance(keys, int) and keys and number % keys:
            raise ModelError(
                f"`{heads} % {_KEYS} == 0` must hold, but got {heads}={number}, {_KEYS}={keys}"
            )


def _defaults(factory: Callable[..., nn.Module]) -> dict[str, Any]:
    try:
        signature = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # what is written in C has no signature
        return {}
    return {p.name: p.default for p in signature if p.default is not inspect.Parameter.empty}


def _heads_of(width: str, known: Mapping[str, Any]) -> list[str]:
    # Where each stage has its own, the constructor knows which widths they divide.
    found = [name for name in _HEADS.get(width, ()) if _sizes(known.get(name))]
    return [name for name in found if isinstance(known[name], int)]


def _sizes(value: Any) -> list[int]:
    """The whole numbers that a size is made of; none: it is no size."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in several)
    return several if whole else []


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, int):
        return _one(value, factor)
    return [_one(size, factor) for size in value]


def _one(size: int, factor: float) -> int:
    grain = _grain(size)
    return grain * max(1, round(size * factor / grain))


def _grain(size: int) -> int:
    # Products of odd sizes are slower; a small size has no steps to give away.
    return 8 if size >= 256 and size % 8 == 0 else 1


def _inner(arguments: Mapping[str, Any]) -> int:
    ratio = arguments.get(_RATIO)
    return int(arguments["dim"] * ratio) if isinstance(ratio, int | float) else 0


def _ratio(inner: int, dim: int) -> float:
    """The ratio whose product with `dim`, rounded down, is `inner`."""
    plain = inner / dim
    return plain if int(dim * plain) == inner else (inner + 0.25) / dim
