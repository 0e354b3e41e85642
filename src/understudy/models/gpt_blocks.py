"""What a small causal language model is made of: rotary places, attention, hidden layers."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.models.causal import Past


class Rotary(nn.Module):
    """Places in a document to the angles by which queries and keys are turned."""

    def __init__(self, head_dim: int, *, base: float | int) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, float(base)

    def forward(
        self, places: Int64[Tensor, " batch length"], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines, `[batch, 1, length, head_dim / 2]` each."""
        wide = torch.promote_types(dtype, torch.float32)
        steps = torch.arange(0, self.head_dim, 2, device=places.device).to(wide) / self.head_dim
        angles = places.to(wide)[:, None, :, None] * self.base**-steps
        return angles.cos().to(dtype), angles.sin().to(dtype)


class CausalBlock(nn.Module):
    """Attention to what came before and a feed-forward network, each normalised first."""

    def __init__(
        self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, mlp: nn.Module
    ) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = norm1, attention, norm2, mlp

    def forward(
        self,
        states: Float[Tensor, " batch length dim"],
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        past: Past = (),
    ) -> tuple[Tensor, Past]:
        """The tokens after this block, and all keys and values."""
        told, memory = self.attention(self.norm1(states), angles, mask, past)
        states = states + told
        return states + self.mlp(self.norm2(states)), memory


class CausalAttention(nn.Module):
    """Every token looks at those before it; several heads may share keys and values."""

    def __init__(self, dim: int, *, heads: int, kv_heads: int, dropout: float | int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.query = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.key = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.proj = nn.Linear(heads * self.head_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: Float[Tensor, " batch length dim"],
        angles: tuple[Tensor, Tensor],
        mask: Bool[Tensor, " batch 1 length every"] | None = None,
        past: Past = (),
    ) -> tuple[Tensor, Past]:
        """What each token gathered, and all keys and values; without a mask, all before it."""
        query, key, value = (
            layer(states).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = _turned(query, angles), _turned(key, angles)
        if past:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        mixed = F.scaled_dot_product_attention(
            query,
            _shared(key, self.heads // self.kv_heads),
            _shared(value, self.heads // self.kv_heads),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return self.dropout(self.proj(mixed.transpose(1, 2).flatten(2))), (key, value)


class SwiGLU(nn.Module):
    """A hidden layer with a gate per unit, on each token by itself."""

    def __init__(self, dim: int, *, inner: int, dropout: float | int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, inner, bias=False)
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Float[Tensor, " batch length dim"]) -> Tensor:
        """The tokens, transformed, `[batch, length, dim]`."""
        answer: Tensor = self.dropout(self.down(F.silu(self.gate(states)) * self.up(states)))
        return answer


class Gelu(nn.Module):
    """A hidden layer with GELU, on each token by itself."""

    def __init__(self, dim: int, *, inner: int, dropout: float | int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Float[Tensor, " batch length dim"]) -> Tensor:
        """The tokens, transformed, `[batch, length, dim]`."""
        answer: Tensor = self.dropout(self.down(F.gelu(self.up(states))))
        return answer


def _turned(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, dim=3)
    cos, sin = angles
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=3)


def _shared(x: Tensor, times: int) -> Tensor:
    """Keys or values once per head that reads them."""
    if times == 1:
        return x
    batch, heads, length, dim = x.shape
    return x.unsqueeze(2).expand(-1, -1, times, -1, -1).reshape(batch, heads * times, length, dim)
