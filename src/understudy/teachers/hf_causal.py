"""Hugging Face causal models behind the interface of ours: states, head, documents, one step.

The model's own decoder does the work. What it is not asked for is which tokens see which: masks
and places come from here, so that several documents lie in one row without seeing each other, and
a step gives what the whole row would have given.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.losses.vocabulary import LinearHead
from understudy.models.causal import DocumentModel, Past, check_token
from understudy.teachers.hf_head import head_agrees, head_of
from understudy.teachers.hf_model import load_hf_model

FULL, SLIDING = "full_attention", "sliding_attention"
CONTEXTS: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
ATTENTIONS: Final = ("sdpa", "eager")

Token = int | Literal["auto"] | None


class HFCausal(DocumentModel):
    """A Hugging Face causal model as a `CausalModel`: token ids `[batch, length]` to logits.

    Attributes:
        network: the model itself, or `peft`'s around it.
        vocabulary: how many logits there are per token, padded ones too.
        context: the most tokens of a row.
        begin: the token that a document begins with; None where there is none.
        end: the token that a document ends with; None where there is none.
        stop: the tokens after which a text is over.

    Example:
        >>> model = load_hf_causal("gpt2")  # doctest: +SKIP
        >>> model.step(torch.tensor([[464, 2068, 7586]]))[0].shape  # doctest: +SKIP
        torch.Size([1, 50257])
    """

    def __init__(
        self, network: nn.Module, *, begin: int | None, end: int | None, stop: tuple[int, ...]
    ) -> None:
        """Wrap a model; `causal_of` finds the tokens.

        Raises:
            ModelError: its logits are not hidden states through a plain head, nothing says how
                long rows may be, or its layers look at something else than earlier tokens.
            ValueError: a token is outside the vocabulary.
        """
        super().__init__()
        self.network = network
        self.begin, self.end, self.stop = begin, end, stop
        config = self._bare.config.get_text_config(decoder=True)
        self.context = _context(config)
        self._kinds, self._window = _layers(config)
        self.vocabulary = len(self.head.weight)
        for token in (begin, end):
            if token is not None:
                check_token(token, self.vocabulary)
        few = torch.zeros((1, 2), dtype=torch.int64, device=self.head.weight.device)
        if not head_agrees(self._bare, self.head, {"input_ids": few}):
            raise _no_head(self._bare)

    @property
    def head(self) -> LinearHead:
        """The model's own, with its scale and soft cap.

        Raises:
            ModelError: it has no plain one.
        """
        head = head_of(self._bare)
        if head is None:
            raise _no_head(self._bare)
        return head

    def _through(
        self, tokens: Tensor, mask: Tensor | None, places: Tensor | None, past: Past | None
    ) -> tuple[Tensor, Past]:
        asked: dict[str, Any] = {"input_ids": tokens}
        # One document per row is what the model expects, and has its fastest kernels for.
        if mask is not None:
            asked |= {"attention_mask": self._masks(mask), "position_ids": places}
        memory = None if past is None else _Memory(past)
        if memory is not None:
            asked["past_key_values"] = memory
        told = self._bare.get_decoder()(**asked, use_cache=memory is not None)
        return told.last_hidden_state, () if memory is None else memory.tensors

    @property
    def _bare(self) -> Any:
        inner = getattr(self.network, "get_base_model", None)
        return self.network if inner is None else inner()

    def _masks(self, mask: Tensor) -> Tensor | dict[str, Tensor]:
        """For each kind of layer, in the form that its attention takes."""
        found = {FULL: mask}
        if SLIDING in self._kinds:
            length, every = mask.shape[2:]
            at = torch.arange(every, device=mask.device)
            near = at[every - length :, None] - at[None, :] < self._window
            found[SLIDING] = mask & near
        attention = self._bare.config._attn_implementation
        if attention not in ATTENTIONS:
            raise ModelError(
                f"documents in one row need a model with `attn_implementation` "
                f"{' or '.join(ATTENTIONS)}, but this one has {attention}: load it with `sdpa`"
            )
        if attention == "eager":
            dtype = self.head.weight.dtype
            lowest = torch.finfo(dtype).min
            found = {
                kind: torch.zeros_like(one, dtype=dtype).masked_fill(~one, lowest)
                for kind, one in found.items()
            }
        return found[self._kinds[0]] if len(self._kinds) == 1 else found


class _Memory:
    """Keys and values layer by layer, as the decoders ask for them."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._now: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, with the new ones."""
        if self._past:
            key = torch.cat([self._past[2 * layer], key], dim=2)
            value = torch.cat([self._past[2 * layer + 1], value], dim=2)
        self._now[layer] = key, value
        return key, value

    def get_seq_length(self, layer: int = 0) -> int:
        """How many tokens were there before."""
        return self._past[2 * layer].shape[2] if self._past else 0

    @property
    def tensors(self) -> Past:
        """Keys and values, layer by layer."""
        return tuple(tensor for layer in sorted(self._now) for tensor in self._now[layer])


def load_hf_causal(source: str | Path, *, begin: Token = "auto", end: Token = "auto") -> HFCausal:
    """A causal model from a folder, or by its name on the hub, in evaluation mode, float32.

    Args:
        source: as for `load_hf_model`.
        begin: as for `causal_of`.
        end: as for `causal_of`.

    Raises:
        ModelError: there is no such model, it is no causal one, or `HFCausal` cannot wrap it.
        MissingExtraError: transformers is not installed.
    """
    network = load_hf_model(source, answer="logits", pad=None).network
    return causal_of(network, begin=begin, end=end).eval()


def causal_of(network: nn.Module, *, begin: Token = "auto", end: Token = "auto") -> HFCausal:
    """A Hugging Face causal model, as an object, behind the interface of ours.

    Args:
        network: the model, or `peft`'s around it.
        begin: the token that documents begin with; `auto` is the configuration's `bos_token_id`,
            where it does not end texts too.
        end: the token that documents end with; `auto` is the configuration's first `eos_token_id`,
            where nothing begins them: models that chat end every turn with it.

    Raises:
        ModelError: it is no causal model, or `HFCausal` cannot wrap it.
        ValueError: a token is outside the vocabulary.
    """
    inner = getattr(network, "get_base_model", None)
    bare: Any = network if inner is None else inner()
    if not hasattr(bare, "get_decoder") or not hasattr(bare, "config"):
        raise ModelError(
            f"a causal model of Hugging Face must be given, but got {type(bare).__name__}: load it "
            "with `AutoModelForCausalLM`"
        )
    config = bare.config.get_text_config(decoder=True)
    first, ends = getattr(config, "bos_token_id", None), _ends(bare, config)
    if begin == "auto":
        begin = None if first in ends else first
    if end == "auto":
        end = ends[0] if begin is None and ends else None
    stop = dict.fromkeys([*ends, *(one for one in (begin, end) if one is not None)])
    return HFCausal(network, begin=begin, end=end, stop=tuple(stop))


def _ends(bare: Any, config: Any) -> tuple[int, ...]:
    for place in (getattr(bare, "generation_config", None), config):
        found = getattr(place, "eos_token_id", None)
        if found is not None:
            return tuple(found) if isinstance(found, Iterable) else (int(found),)
    return ()


def _context(config: Any) -> int:
    for name in CONTEXTS:
        found = getattr(config, name, None)
        if isinstance(found, int) and found > 0:
            return found
    raise ModelError(
        f"a causal model must say how long rows may be, but {type(config).__name__} has none of "
        f"{', '.join(CONTEXTS)}: set `config.max_position_embeddings`"
    )


def _layers(config: Any) -> tuple[tuple[str, ...], int]:
    """The kinds of layers there are, and how far those look that do not look at all tokens."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or (FULL if window is None else SLIDING,)
    known = tuple(dict.fromkeys(kinds))
    other = sorted(set(known) - {FULL, SLIDING})
    if other:
        raise ModelError(
            "every layer must look at earlier tokens, all or the nearest, but "
            f"{type(config).__name__} has layers of {', '.join(other)}: choose another model"
        )
    return known, 0 if window is None else int(window)


def _no_head(bare: Any) -> ModelError:
    return ModelError(
        "the logits of a causal model must be its last hidden states through one linear layer, "
        f"but those of {type(bare).__name__} are not: load it unquantised, with adapters on other "
        "layers than its head"
    )
