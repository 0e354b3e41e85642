"""A network together with what stands before and after it: raw rows in, one row of numbers out.

Every model of a run, teacher, student or control, has this form, so that the same rows go to all
of them, and the exported file needs no preprocessing of the user's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.losses.rows import unit

# Where the answer lies in a dictionary or a Hugging Face output, best first.
_NAMES = ("logits", "values", "output", "outputs", "prediction", "predictions")


class Deployable(nn.Module):
    """Preprocessing, network and the reading of its answer as one module."""

    def __init__(
        self,
        *,
        preprocess: nn.Module,
        network: nn.Module,
        width: int,
        rescale: nn.Module | None = None,
        each_token: bool = False,
    ) -> None:
        """Join the parts.

        Args:
            preprocess: raw rows to what the network takes; has no weights.
            network: may answer with a tensor, a tuple, a mapping or a Hugging Face output.
            width: how many numbers per row the task asks for.
            rescale: brings the network's answer into the units of the labels.
            each_token: whether it answers once per token, `[batch, length, width]`.
        """
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.rescale = rescale or nn.Identity()
        self.width, self.each_token = width, each_token

    def forward(self, rows: Shaped[Tensor, " batch ..."]) -> Float[Tensor, " batch *length width"]:
        """The answer to raw rows, `[batch, width]`, or `[batch, length, width]` per token."""
        found = self.network(self.preprocess(rows))
        answer = read_answer(found, self.width, each_token=self.each_token)
        return cast(Tensor, self.rescale(answer))


def inner(model: nn.Module) -> nn.Module:
    """The network that paths of layers start from: the user's own, without what is around it."""
    return model.network if isinstance(model, Deployable) else model


class Rescale(nn.Module):
    """`answer * std + mean`: a network learns in units of one, and answers in the labels' own."""

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Constants, one per target."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def constants(self) -> dict[str, list[float]]:
        """What the constructor takes."""
        return {name: cast(Tensor, getattr(self, name)).tolist() for name in ("mean", "std")}

    def forward(self, answer: Float[Tensor, " batch targets"]) -> Float[Tensor, " batch targets"]:
        """The answer in the labels' units."""
        return answer * cast(Tensor, self.std) + cast(Tensor, self.mean)


class Unit(nn.Module):
    """Brings vectors to length 1; a zero vector stays what it is."""

    def forward(self, answer: Float[Tensor, " batch width"]) -> Float[Tensor, " batch width"]:
        """The directions."""
        return unit(answer)


def read_answer(
    result: Any, width: int, *, each_token: bool = False
) -> Float[Tensor, " batch *length width"]:
    """The tensor `[batch, width]` in whatever a network returned.

    A tuple or list answers with its first item, a mapping with its `logits` (or a near name),
    an object with its attribute `logits`.

    Args:
        result: of the network.
        width: how many numbers per row, or per token.
        each_token: whether there is one answer per token, `[batch, length, width]`.

    Raises:
        ModelError: there is no such tensor, or it has another width.
    """
    answer = _find(result)
    if each_token:
        if answer.ndim != 3 or answer.shape[2] != width:
            raise ModelError(
                f"a model must answer with {width} numbers per token, [batch, length, {width}], "
                f"but this one answered with shape {list(answer.shape)}: leave the pooling out, "
                f"and give its last layer {width} outputs"
            )
        return answer
    if answer.ndim == 1 and width == 1:
        answer = answer.unsqueeze(1)
    if answer.ndim != 2 or answer.shape[1] != width:
        raise ModelError(
            f"a model must answer with {width} numbers per row, [batch, {width}], but this one "
            f"answered with shape {list(answer.shape)}: give its last layer {width} outputs "
            "(one per class of the data, or per target)"
        )
    return answer


def _find(result: Any) -> Tensor:
    if isinstance(result, Tensor):
        return result
    if isinstance(result, (tuple, list)) and result and isinstance(result[0], Tensor):
        return result[0]
    found = []
    if isinstance(result, Mapping):
        found = [result[n] for n in _NAMES if n in result] or list(result.values())[:1]
    elif getattr(result, "logits", None) is not None:
        found = [result.logits]
    for item in found:
        if isinstance(item, Tensor):
            return item
    raise ModelError(
        "a model must return a tensor, a tuple that begins with one, a mapping with `logits`, or "
        f"an object with `.logits`, but this one returned {type(result).__name__}: "
        "wrap it in a module that returns its logits"
    )
