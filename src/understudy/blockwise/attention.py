"""Self-attention rebuilt so that it can be made cheaper: shared keys and values, or linear.

Whether a block's attention is understood is not guessed from names. It is rebuilt as it is, and
exchanged only where the block then answers as before.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.blockwise.calls import allowed, visible
from understudy.blockwise.words import Call
from understudy.errors import ModelError
from understudy.features.attention_layers import attention_layers
from understudy.students.blocks.chain import resting

Form = Literal["softmax", "linear"]
_OUTPUTS = ("out_proj", "o_proj", "out_lin", "proj")
_TOLERANCE = 1e-4


class Attention(nn.Module):
    """Self-attention over tokens, called as the attention that it stands for.

    With `linear`, each query is compared with keys through elu(x) + 1, so that the cost grows with
    the number of tokens, not with its square. `groups` fewer than `heads` let heads share keys and
    values.

    Args:
        width: of a token.
        heads: of queries.
        groups: of keys and values; it divides `heads`.
        size: of a head.
        bias: whether the layers of queries, keys and values have one.
        form: how queries and keys are compared.
        items: how many items its answer has, 0 for a bare tensor; those behind the first are None.
        batch_first: whether the first axis is that of rows.

    Paper:
        Katharopoulos et al. 2020, "Transformers are RNNs", sections 3.2 and 3.2.1; Ainslie et al.
        2023, "GQA", section 2.
    """

    # What PyTorch's own encoder layer asks before it goes its fast way, which reads weights that
    # are not here.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        groups: int,
        size: int,
        bias: bool = True,
        form: Form = "softmax",
        items: int = 0,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, size
        self.form, self.items, self.batch_first = form, items, batch_first
        self.query = nn.Linear(width, heads * size, bias=bias)
        self.key = nn.Linear(width, groups * size, bias=bias)
        self.value = nn.Linear(width, groups * size, bias=bias)
        self.out: nn.Module = nn.Identity()

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """`[rows, tokens, width]` to what each token gathered."""
        rows = hidden_states if self.batch_first else hidden_states.transpose(0, 1)
        mask = allowed(rows, args, kwargs)
        query = self._split(self.query(rows), self.heads)
        key, value = (
            self._split(layer(rows), self.groups).repeat_interleave(
                self.heads // self.groups, dim=1
            )
            for layer in (self.key, self.value)
        )
        mixed = self._linear(query, key, value, mask) if self.form == "linear" else (
            F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        )  # fmt: skip
        made = self.out(mixed.transpose(1, 2).flatten(2))
        made = made if self.batch_first else made.transpose(0, 1)
        return (made, *(None for _ in range(self.items - 1))) if self.items else made

    def extra_repr(self) -> str:
        """Its constants, for printing."""
        return f"heads={self.heads}, groups={self.groups}, form={self.form}"

    def _split(self, joined: Tensor, heads: int) -> Tensor:
        return joined.reshape(*joined.shape[:2], heads, self.size).transpose(1, 2)

    def _linear(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key = F.elu(query) + 1, F.elu(key) + 1
        if mask is not None:
            # The same keys are shown to all queries; that was checked when this was put here.
            key = key * mask[:, :, 0, :, None].to(key.dtype)
        summed = key.transpose(2, 3) @ value
        weight = query @ key.sum(dim=2)[..., None]
        return (query @ summed) / weight.clamp(min=1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """One self-attention, and how it was called."""

    path: str
    rebuilt: Attention
    uniform: bool


def exchange(piece: nn.Module, call: Call, *, form: Form, share: int = 1) -> nn.Module:
    """A copy of a block with all of its self-attention exchanged.

    Args:
        piece: the block; it is not changed.
        call: how it was called.
        form: how queries and keys are compared in the copy.
        share: how many neighbouring heads share their keys and values from now on; these start
            from the mean of theirs.

    Raises:
        ModelError: there is no self-attention that can be rebuilt, heads do not divide, or queries
            see different keys, which linear attention cannot follow.
    """
    found = _found(piece, call)
    made = copy.deepcopy(piece)
    for one in found:
        old = one.rebuilt
        if form == "linear" and not one.uniform:
            raise ModelError(
                f"`{one.path}` masks other keys for each query (as causal attention does), which "
                "linear attention of whole rows cannot do"
            )
        if old.groups % share:
            raise ModelError(f"{old.groups} heads of keys in `{one.path}` do not divide by {share}")
        new = Attention(
            old.query.in_features, heads=old.heads, groups=old.groups // share, size=old.size,
            bias=old.query.bias is not None, form=form, items=old.items,
            batch_first=old.batch_first,
        )  # fmt: skip
        weights = old.state_dict()
        for name in ("key.weight", "key.bias", "value.weight", "value.bias"):
            if name in weights:
                rest = weights[name].shape[1:]
                apart = weights[name].reshape(new.groups, share, old.size, *rest)
                weights[name] = apart.mean(dim=1).flatten(0, 1)
        new.out = copy.deepcopy(old.out)
        new.to(old.query.weight).load_state_dict(weights)
        made.set_submodule(one.path, new)
    return made


def _found(piece: nn.Module, call: Call) -> list[_Found]:
    """All self-attention of a block.

    Raises:
        ModelError: there is none, or one that answers otherwise than what was rebuilt.
    """
    holders = holders_in(piece)
    if not holders:
        raise ModelError("it holds no self-attention with layers of known names")
    seen = _called(piece, call, holders)
    found = []
    for path, rebuilt in holders.items():
        if path not in seen:
            raise ModelError(f"`{path}` is not called with tokens")
        rebuilt.items, uniform = seen[path]
        found.append(_Found(path=path, rebuilt=rebuilt, uniform=uniform))
    tried = copy.deepcopy(piece)
    for one in found:
        tried.set_submodule(one.path, one.rebuilt)
    with resting(tried):
        try:
            answer = tried(call.stream, *call.args, **call.kwargs)
        except Exception as error:  # whatever the user's own forward raises
            raise ModelError(f"its attention cannot be exchanged ({error})") from error
    # Not what the call says it gave, which may have been recorded with fewer digits.
    with resting(piece):
        goal = piece(call.stream, *call.args, **call.kwargs)
    shown = visible(call)
    if shown is not None and answer.shape == goal.shape:
        answer, goal = answer[shown], goal[shown]
    size = float(goal.abs().max())
    if answer.shape != goal.shape or not torch.allclose(
        answer, goal, rtol=_TOLERANCE, atol=_TOLERANCE * (1 + size)
    ):
        raise ModelError(
            "its attention does more than compare queries with keys (as rotated or relative "
            "positions, or a mask of its own), so it cannot be exchanged"
        )
    return found


def _called(
    piece: nn.Module, call: Call, holders: dict[str, Attention]
) -> dict[str, tuple[int, bool]]:
    """For each attention the length of its answer, 0 of a bare one, and if queries see the same."""
    seen: dict[str, tuple[int, bool]] = {}
    hooks = []

    def hook(path: str) -> Any:
        def after(_: nn.Module, args: Any, kwargs: Any, made: Any) -> None:
            given = [*args, *kwargs.values()]
            rows = given[0] if holders[path].batch_first else given[0].transpose(0, 1)
            mask = allowed(rows, tuple(args[1:]), kwargs)
            uniform = mask is None or bool((mask == mask[:, :1, :1]).all())
            seen[path] = len(made) if type(made) is tuple else 0, uniform

        return after

    for path in holders:
        module = piece.get_submodule(path)
        hooks.append(module.register_forward_hook(hook(path), with_kwargs=True))
    try:
        with resting(piece):
            piece(call.stream, *call.args, **call.kwargs)
    finally:
        for one in hooks:
            one.remove()
    return seen


def holders_in(piece: nn.Module) -> dict[str, Attention]:
    """The self-attention of a block whose layers are known, rebuilt, by path."""
    found: dict[str, Attention] = {}
    for path, module in piece.named_modules():
        if any(path.startswith(f"{outer}.") for outer in found):
            continue
        rebuilt = _own(module) if isinstance(module, nn.MultiheadAttention) else _named(piece, path)
        if rebuilt is not None:
            found[path] = rebuilt
    return found


def _own(module: nn.MultiheadAttention) -> Attention | None:
    """PyTorch's own, rebuilt."""
    if not module._qkv_same_embed_dim or module.bias_k is not None or module.add_zero_attn:
        return None
    made = Attention(
        module.embed_dim, heads=module.num_heads, groups=module.num_heads, size=module.head_dim,
        bias=module.in_proj_bias is not None, batch_first=module.batch_first,
    )  # fmt: skip
    made.to(module.in_proj_weight)
    layers = (made.query, made.key, made.value)
    _fill(layers, module.in_proj_weight.chunk(3), module.in_proj_bias)
    made.out = copy.deepcopy(module.out_proj)
    return made


def _named(piece: nn.Module, path: str) -> Attention | None:
    """One with layers of known names, rebuilt."""
    try:
        layers = attention_layers(piece, path)
    except ModelError:
        return None
    linear = [piece.get_submodule(name) for name in layers.paths]
    if not path or any(name.rpartition(".")[0] != path for name in layers.paths):
        return None
    if not all(isinstance(layer, nn.Linear) for layer in linear):
        return None
    weights = [layer.weight for layer in linear if isinstance(layer, nn.Linear)]
    biases = [layer.bias for layer in linear if isinstance(layer, nn.Linear)]
    if layers.fused:
        weights = list(weights[0].chunk(3))
    size, rest = divmod(len(weights[0]), layers.heads)
    groups, odd = divmod(len(weights[1]), max(size, 1))
    if rest or odd or not groups or layers.heads % groups or len(weights[1]) != len(weights[2]):
        return None
    made = Attention(weights[0].shape[1], heads=layers.heads, groups=groups, size=size,
                     bias=biases[0] is not None)  # fmt: skip
    joined = None if biases[0] is None else torch.cat(list(biases))
    made.to(weights[0])
    _fill((made.query, made.key, made.value), tuple(weights), joined)
    holder = piece.get_submodule(path)
    outputs = [getattr(holder, name) for name in _OUTPUTS if hasattr(holder, name)]
    if outputs:
        made.out = copy.deepcopy(outputs[0])
    return made


def _fill(
    layers: tuple[nn.Linear, ...], weights: tuple[Tensor, ...], joined: Tensor | None
) -> None:
    sizes = [len(weight) for weight in weights]
    biases = [None] * len(sizes) if joined is None else torch.split(joined, sizes)
    with torch.no_grad():
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
