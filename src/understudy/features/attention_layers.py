"""Where a transformer's block computes its queries, keys and values."""

from dataclasses import dataclass

from torch import nn

from understudy.errors import ModelError

# One layer that gives all queries, then all keys, then all values; or three layers. GPT-NeoX and
# BLOOM have one whose heads lie in turns: theirs has to be named, and cannot be split here.
_FUSED = ("qkv", "c_attn", "Wqkv")
_APART = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("q", "k", "v"),
)
_HEADS = ("heads", "num_heads", "num_attention_heads", "n_heads", "n_head")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionLayers:
    """Where to read one block's attention.

    Attributes:
        paths: of the one layer that gives queries, keys and values joined, or of the three.
        heads: how many attention heads there are.
    """

    paths: tuple[str, ...]
    heads: int

    @property
    def fused(self) -> bool:
        """Whether one layer gives all three."""
        return len(self.paths) == 1


def attention_layers(network: nn.Module, block: str) -> AttentionLayers:
    """The layers of a block's attention, and its number of heads.

    Raises:
        ModelError: nothing with a known name is there.
    """
    for path, module in network.get_submodule(block).named_modules():
        at = ".".join(part for part in (block, path) if part)
        names = {name for name, _ in module.named_children()}
        fused = next((name for name in _FUSED if name in names), None)
        apart = next((three for three in _APART if names.issuperset(three)), None)
        if fused is None and apart is None:
            continue
        found = (fused,) if fused is not None else apart
        assert found is not None
        heads = _heads(network, at)
        return AttentionLayers(paths=tuple(f"{at}.{name}" for name in found), heads=heads)
    raise ModelError(
        f"`{block}` holds no attention with layers of a known name ({', '.join(_FUSED)}; or "
        f"{'; '.join('/'.join(three) for three in _APART)}): name the layers, and the heads in "
        "`adapter: {kind: heads, student_heads: N, teacher_heads: N}`"
    )


def _heads(network: nn.Module, path: str) -> int:
    """From the attention itself, or whatever stands around it."""
    parts = path.split(".")
    for length in range(len(parts), -1, -1):
        module = network.get_submodule(".".join(parts[:length]))
        for holder in (module, getattr(module, "config", None)):
            for name in _HEADS:
                found = getattr(holder, name, None)
                if isinstance(found, int) and found > 0:
                    return found
    raise ModelError(
        f"`{path}` does not say how many attention heads it has ({', '.join(_HEADS)}): give "
        "`adapter: {kind: heads, student_heads: N, teacher_heads: N}`"
    )
