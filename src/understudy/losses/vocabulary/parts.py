"""What a loss over a large vocabulary is given: heads, the teacher's labels, and how to cut."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from understudy.losses.constants import check_one_of

KEPT: Final = {"cpu": 56 * 2**20, "cuda": 512 * 2**20}
"""Bytes of logits of one side that are kept between two looks at them, by kind of device."""

COLUMNS: Final = {"cpu": 2048, "cuda": 32768}
"""Columns at a time: on a processor few enough for its cache, on a GPU enough to fill it."""

FEWEST: Final = 32
"""Below as many tokens at a time, reading the weights costs more than computing logits again."""

MOST: Final = 256

KERNELS: Final = ("auto", "plain", "triton")


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearHead:
    """The last layer of a language model: from hidden states to one logit per token.

    `logits = cap(scale * (hidden @ weight.T + bias))`, where `cap(z) = soft_cap * tanh(z /
    soft_cap)`, and nothing where there is no soft cap. Gemma caps, Cohere scales, Granite divides
    (`scale = 1 / logits_scaling`).

    Attributes:
        weight: `[vocabulary, width]`, a tied embedding too.
        bias: `[vocabulary]`, or None.
        scale: what logits are multiplied by before they are capped.
        soft_cap: the size that no logit exceeds, or None.

    Raises:
        ValueError: the shapes do not belong together, or a constant is not positive and finite.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float | int = 1.0
    soft_cap: float | int | None = None

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise ValueError(
                f"`weight` must be [vocabulary, width], but got {tuple(self.weight.shape)}: give "
                "the weight of the last linear layer, as PyTorch holds it"
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                "`bias.shape == weight.shape[:1]` must hold, but got bias "
                f"{tuple(self.bias.shape)} and weight {tuple(self.weight.shape)}"
            )
        for name, value in (("scale", self.scale), ("soft_cap", self.soft_cap)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"`{name} > 0` must hold, but got {name}={value}: leave it out where the "
                    "model has none"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenLabels:
    """A teacher told by its hidden states and its head: live, or stored hidden states.

    Attributes:
        hidden: `[tokens, width]` of the teacher; no gradient reaches it.
        head: the teacher's own.
    """

    hidden: Tensor
    head: LinearHead


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseLabels:
    """A teacher told by all its logits, or by all its log probabilities at temperature 1.

    Attributes:
        logits: `[tokens, vocabulary]`, of any precision; -inf where it rules a token out.
    """

    logits: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedLabels:
    """A teacher told by some outcomes per token, as a label store holds them.

    Attributes:
        ids: int64 `[tokens, k]`, distinct in a row; -1 where fewer than k are listed.
        log_mass: `[tokens, k]`, log of the probability of each at temperature 1, or of its weight
            where `sampled`; -inf where `ids` is -1.
        rest: `[tokens]`, log of the mass of all others together; -inf where nothing is left. Not
            read where `sampled`.
        sampled: whether the list was drawn: `log_mass` are weights whose expectation is the
            teacher's distribution.
        entropy: `[tokens]`, the teacher's in nats, with sampled ones.
    """

    ids: Tensor
    log_mass: Tensor
    rest: Tensor
    sampled: bool = False
    entropy: Tensor | None = None

    def of(self, rows: Tensor) -> "ListedLabels":
        """Those of some tokens."""
        return ListedLabels(
            ids=self.ids[rows],
            log_mass=self.log_mass[rows],
            rest=self.rest[rows],
            sampled=self.sampled,
            entropy=None if self.entropy is None else self.entropy[rows],
        )


Labels = HiddenLabels | DenseLabels | ListedLabels


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """`KL(teacher || student)`, as `soft_target_kl`: the student covers all the teacher may say.

    Paper:
        Hinton, Vinyals and Dean 2015, section 2.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Reverse:
    """`KL(student || teacher)`, as `reverse_kl`: the student picks some of the teacher's modes.

    Paper:
        Gu et al. 2024, "MiniLLM", section 2.1.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Blend:
    """The generalised Jensen-Shannon divergence, as `jensen_shannon`.

    `beta * KL(p || m) + (1 - beta) * KL(q || m)` with the teacher's p, the student's q and the
    blend `m = beta * p + (1 - beta) * q`.

    Attributes:
        beta: the teacher's share in the blend, between 0 and 1.

    Paper:
        Agarwal et al. 2024, "On-Policy Distillation of Language Models" (GKD), section 2.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(
                f"`0 < beta < 1` must hold, but got beta={self.beta}: for the ends use "
                "`Forward()` and `Reverse()`"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Skew:
    """One distribution against the other mixed with a little of itself, as `skew_kl`.

    Forward: `KL(p || skew * p + (1 - skew) * q)`; reverse: `KL(q || skew * q + (1 - skew) * p)`.

    Attributes:
        skew: how much of the first is mixed into the second, between 0 and 1.
        direction: `forward` weighs tokens by the teacher, `reverse` by the student.

    Paper:
        Ko et al. 2024, "DistiLLM", section 3.1.
    """

    skew: float = 0.1
    direction: str = "forward"

    def __post_init__(self) -> None:
        if not 0 < self.skew < 1:
            raise ValueError(
                f"`0 < skew < 1` must hold, but got skew={self.skew}: usual is 0.1; without "
                "skew use `Forward()` or `Reverse()`"
            )
        check_one_of("direction", self.direction, ("forward", "reverse"))


Divergence = Forward | Reverse | Blend | Skew


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """How the work is cut. It changes memory and time, never what is computed.

    Attributes:
        tokens: how many tokens are looked at together.
        columns: how many columns of the vocabulary are looked at together.
        keep: whether the logits of these tokens, `[tokens, vocabulary]` per side, are kept between
            the first look at them and the next, or computed again.
        kernels: `plain` computes by PyTorch's own operations, `triton` by Triton's kernels, and
            `auto` by Triton's for CUDA tensors where it is installed.

    Raises:
        ValueError: a size below 1, or `kernels` is another word.
    """

    tokens: int
    columns: int
    keep: bool = True
    kernels: str = "auto"

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.columns < 1:
            raise ValueError(
                "`tokens >= 1` and `columns >= 1` must hold, but got "
                f"tokens={self.tokens}, columns={self.columns}"
            )
        check_one_of("kernels", self.kernels, KERNELS)

    @staticmethod
    def fitting(vocabulary: int, *, dtype: torch.dtype, device: torch.device) -> "Pieces":
        """As many tokens as fit into `KEPT`; where these are too few, logits are not kept."""
        kept = KEPT.get(device.type, KEPT["cuda"])
        columns = COLUMNS.get(device.type, COLUMNS["cuda"])
        tokens = kept // (vocabulary * dtype.itemsize)
        if tokens < FEWEST:
            return Pieces(tokens=MOST, columns=columns, keep=False)
        most = MOST if device.type == "cpu" else 16 * MOST
        return Pieces(tokens=min(tokens, most), columns=columns)
