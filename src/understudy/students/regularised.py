"""Students that are harder to fit while they learn: dropout, and residual branches left out.

Both are hooks and settings: the network keeps its class, its paths and the names of its weights,
and in evaluation mode it computes exactly what it did before. So the blocks are found as before,
weights are loaded as before, and the exported file knows nothing of it.
"""

from collections import defaultdict
from copy import deepcopy
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.students.residuals import residuals

Mode = Literal["linear", "uniform"]
Per = Literal["row", "batch"]
_DROPOUTS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def with_dropout(network: nn.Module, share: float) -> nn.Module:
    """A copy of a network that drops this share of activations while it trains.

    Every dropout layer that it has gets this share, and that of `nn.MultiheadAttention`. Where it
    has none, the input of its last layer with weights is dropped.

    Args:
        network: the user's own; it is left as it is.
        share: 0 switches dropout off.

    Raises:
        ModelError: the share is outside 0 to 1, or there is no layer to drop the input of.

    Paper:
        Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
        Overfitting", section 4.
    """
    _check_share("dropout", share)
    copy = deepcopy(network)
    found = False
    for module in copy.modules():
        if isinstance(module, _DROPOUTS):
            module.p, found = share, True
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout, found = share, True
    if not found and share > 0:
        layers = [m for m in copy.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
        if not layers:
            raise ModelError(
                f"{type(network).__name__} has no dropout layers, nor a linear layer or a "
                "convolution that one could stand before: build it with dropout"
            )
        layers[-1].register_forward_pre_hook(_Dropped(share))
    return copy


def with_stochastic_depth(
    network: nn.Module,
    rows: Tensor,
    share: float,
    *,
    mode: Mode = "linear",
    per: Per = "row",
) -> nn.Module:
    """A copy of a network whose residual branches are left out at random while it trains.

    A branch that stays is divided by the probability of staying, so nothing has to be changed
    afterwards. A dropped branch leaves what goes around it, as the network computes it: the
    shortcut, and the activation or normalisation after the sum. Draws come from torch's own
    generator, which the engine seeds.

    Args:
        network: the user's own; it is left as it is.
        rows: a few rows as it takes them, to find its branches.
        share: the probability with which the last branch is dropped.
        mode: `linear`: the l-th of L branches is dropped with probability `share * l / L`;
            `uniform`: all with `share`. A transformer's block has two branches.
        per: whether a branch is dropped for each row by itself, or for the whole batch.

    Raises:
        ModelError: the share is outside 0 to 1, there are no residual branches, or one that
            cannot be dropped.

    Paper:
        Huang et al. 2016, "Deep Networks with Stochastic Depth", section 3 (linear decay of the
        probability to survive); it scales at test time instead, and drops for the whole batch.
    """
    _check_share("stochastic_depth", share)
    for name, value, known in (("mode", mode, Mode), ("per", per, Per)):
        if value not in known.__args__:  # type: ignore[attr-defined]
            choices = ", ".join(known.__args__)  # type: ignore[attr-defined]
            raise ModelError(f"`{name}` must be one of {choices}, but got {value!r}")
    copy = deepcopy(network)
    if share == 0:
        return copy
    found = residuals(network, rows)
    turned = [path for branch in found if not branch.rowwise for path in branch.ends]
    if turned and per == "row":
        raise ModelError(
            f"a branch is dropped for each row by itself, but the first axis of `{turned[0]}` is "
            'not the batch: use `batch_first=True`, or `per="batch"`'
        )
    chances: dict[str, list[float]] = defaultdict(list)
    for number, branch in enumerate(found, start=1):
        for path in branch.ends:
            chances[path].append(share * number / len(found) if mode == "linear" else share)
    for path, several in chances.items():
        # A module that is called several times, a shared block's, has one probability.
        hook = _LeftOut(fmean(several), whole=per == "batch")
        copy.get_submodule(path).register_forward_hook(hook)
    return copy


class _Dropped:
    """Drops what a layer is given."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> Any:
        if not module.training:
            return None
        return (F.dropout(given[0], self.share, training=True), *given[1:])


class _LeftOut:
    """Leaves out what a module gives."""

    def __init__(self, share: float, *, whole: bool) -> None:
        self.share, self.whole = share, whole

    def __call__(self, module: nn.Module, given: Any, result: Any) -> Any:
        del given
        if not module.training:
            return None
        if isinstance(result, tuple):
            return (self._left(result[0]), *result[1:])
        return self._left(result)

    def _left(self, result: Tensor) -> Tensor:
        rows = 1 if self.whole else len(result)
        stays = torch.rand(rows, device=result.device) >= self.share
        # Chosen, not multiplied: what is left out may be infinite.
        kept = stays.view(-1, *[1] * (result.ndim - 1))
        return torch.where(kept, result / (1 - self.share), torch.zeros_like(result))


def _check_share(name: str, share: float) -> None:
    if not 0 <= share < 1:
        raise ModelError(f"`0 <= {name} < 1` must hold, but got {share}: usual is 0.1")
