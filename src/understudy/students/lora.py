"""Students that are their teacher (or a cut of it) with frozen weights and low-rank updates."""

import re
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import MissingExtraError, ModelError
from understudy.evaluate.cost import parameters as count
from understudy.export.load_notes import without_load_notes
from understudy.features.blocks import blocks
from understudy.students.low_rank.factors import numbers, sides
from understudy.students.low_rank.watched import by_reason, called, looked
from understudy.students.wanted import check_number, check_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraPlan:
    """Which layers learn an update, and of which rank.

    Attributes:
        ranks: layer path to rank, in the order in which the layers run; a layer with fewer inputs
            or outputs than the rank that was asked for has an update of its own full rank.
        scale: what every update is multiplied by, alpha / rank.
        parameters: of the network, to which the merged updates add nothing.
        trained: how many numbers the updates have.
        left: layers that stay as they are, and why; the first and the last, and those that nobody
            asked for, are not listed.
    """

    ranks: Mapping[str, int]
    scale: float
    parameters: int
    trained: int
    left: Mapping[str, str] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """As plain JSON, with `kind: lora`."""
        return {
            "kind": "lora",
            "ranks": dict(self.ranks),
            "scale": self.scale,
            "parameters": self.parameters,
            "trained": self.trained,
            "left": dict(self.left),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "LoraPlan":
        """The plan that `to_data` wrote; ModelError for anything else."""
        if data.get("kind") != "lora" or {*data} != {"kind", *cls.__dataclass_fields__}:
            raise ModelError("this is no plan of low-rank updates: plan them again")
        return cls(**{name: value for name, value in data.items() if name != "kind"})

    def lines(self) -> list[str]:
        """What learns and what is left, for people."""
        share = self.trained / max(1, self.parameters)
        said = [
            f"{len(self.ranks)} layers learn updates of low rank: {self.trained:,} numbers are "
            f"trained beside {self.parameters:,} frozen ones ({share:.2%})"
        ]
        said += [f"{path}: an update of rank {rank}" for path, rank in self.ranks.items()]
        return said + [f"{path}: left as it is, {why}" for path, why in self.left.items()]


def plan_lora(
    network: nn.Module,
    rows: Tensor,
    *,
    rank: int = 8,
    alpha: float | int = 16,
    layers: Sequence[str] = (),
) -> LoraPlan:
    """Choose which layers learn an update.

    Taken are `nn.Linear`, the `Conv1D` of Hugging Face's GPT-2 and `nn.Conv2d` without groups.
    Layers that share weights, whose weights are read by the module around them, that have hooks or
    do not run on the rows are left as they are: an update beside them would not be seen, or could
    not be merged.

    Args:
        network: any module; it is not changed.
        rows: two rows or more that it takes, for a dry run.
        rank: of the updates, at most.
        alpha: updates are multiplied by alpha / rank.
        layers: patterns of layer paths, with `*`; by default all but the network's first and last.

    Raises:
        ModelError: a rank or alpha that is not positive, a pattern that finds nothing, no layer
            that can learn an update, or updates of as many numbers as the layers themselves.

    Paper:
        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 2))
        >>> plan = plan_lora(net, torch.randn(2, 8), rank=4)
        >>> dict(plan.ranks), plan.trained
        ({'1': 4}, 256)
    """
    check_whole("rank", rank, usual=8)
    check_number("alpha", alpha, usual=16)
    if rank < 1 or not 0 < alpha < float("inf"):
        raise ModelError(f"`rank >= 1` and `alpha > 0` must hold, but got {rank=}, {alpha=}")
    if has_lora(network):
        raise ModelError(
            f"{type(network).__name__} has updates of low rank already: add them to its weights "
            "first, with `merged`"
        )
    seen = looked(network, rows[:2], batch_size=2, moments=())
    wanted = called(network, seen.order, layers)
    left = {path: seen.left[path] for path in wanted if path in seen.left}
    odd = "as an update of a convolution has no dilation, and pads with zeros"
    left |= {p: odd for p in wanted if p not in left and _is_odd(network.get_submodule(p))}
    free = {path: seen.layers[path] for path in wanted if path not in left}
    if not free:
        raise ModelError(
            f"there is no layer to learn an update for{''.join(by_reason(left))}: it takes "
            "nn.Linear, nn.Conv2d without groups and the Conv1D of Hugging Face's; choose others "
            "with `layers`"
        )
    ranks = {path: min(rank, *sides(layer)) for path, layer in free.items()}
    trained = sum(ranks[path] * sum(sides(layer)) for path, layer in free.items())
    whole = sum(numbers(layer) for layer in free.values())
    if trained >= whole:
        raise ModelError(
            f"updates must have fewer numbers than their {len(free)} layers, but at rank {rank} "
            f"they have {trained:,} of {whole:,}: lower `rank`, or train a student that is cut by "
            "depth or width instead"
        )
    return LoraPlan(
        ranks=ranks,
        scale=float(alpha) / rank,
        parameters=count(network),
        trained=trained,
        left=left,
    )


def add_lora(network: nn.Module, plan: LoraPlan, *, seed: int = 0) -> Student:
    """A copy with frozen weights and updates that are zero at the start.

    It answers as the network does. A planned layer keeps its path; what it was is its
    `base_layer`. Only the updates have `requires_grad`. Batch statistics are no weights: they go
    on following the rows while the copy is in training mode.

    Args:
        network: what the plan was made for, or one of the same architecture; it is not changed.
        plan: of `plan_lora`.
        seed: of the random factor.

    Raises:
        ModelError: a layer of the plan is not in this network, or peft does not take it.
        MissingExtraError: peft is not installed.
    """
    try:
        with warnings.catch_warnings(), without_load_notes():
            warnings.simplefilter("ignore")  # its own imports
            from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("peft", "lora") from error
    found = dict(network.named_modules())
    for path, rank in plan.ranks.items():
        if not 1 <= rank <= min(sides(found.get(path))):
            raise ModelError(
                f"the plan has an update of rank {rank} for `{path}`, but this network has no such "
                "layer of that rank: make the plan from it"
            )
    module = deepcopy(network)
    # A list of names would also match their endings elsewhere.
    names = "|".join(re.escape(path) for path in plan.ranks)
    config = LoraConfig(
        target_modules=f"({names})",
        r=1,
        lora_alpha=1,
        rank_pattern={f"^{re.escape(path)}": rank for path, rank in plan.ranks.items()},
        alpha_pattern={
            f"^{re.escape(path)}": plan.scale * rank for path, rank in plan.ranks.items()
        },
    )
    devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        # It finds out by itself which weights lie the other way round, and says so.
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            made: nn.Module = inject_adapter_in_model(config, module)
        except Exception as error:  # what peft knows of single networks, in its own words
            raise ModelError(
                f"peft puts no updates of low rank into these layers of {type(network).__name__} "
                f"({error}): choose others with `layers`"
            ) from error
    try:
        provenance = {path: path for path in blocks(network)}
    except ModelError:  # a network without blocks to pair can learn all the same
        provenance = {}
    return Student(module=made, provenance=provenance)


def merged(module: nn.Module) -> nn.Module:
    """A copy in which every update is added to the weights that it belongs to.

    It has the structure of the network that `add_lora` was given, all of it trainable. A module
    without updates is returned as it is.

    Raises:
        ModelError: an update is not finite.
    """
    if not has_lora(module):
        return module
    whole = deepcopy(module)
    for path, layer in list(whole.named_modules()):
        if not _is_update(layer):
            continue
        peft: Any = layer
        try:
            peft.merge(safe_merge=True)
        except ValueError as error:
            raise ModelError(
                f"the update of `{path}` is not finite: train with a smaller learning rate"
            ) from error
        whole.set_submodule(path, peft.get_base_layer())
    for part in whole.modules():
        vars(part).pop("peft_config", None)
    return whole.requires_grad_(True)


def _is_odd(layer: nn.Module) -> bool:
    """Whether peft would compute the update of a layer in another way than the layer itself."""
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.padding_mode != "zeros" or any(step != 1 for step in layer.dilation)


def has_lora(module: nn.Module) -> bool:
    """Whether a module, or anything in it, learns an update."""
    return any(_is_update(part) for part in module.modules())


def _is_update(part: nn.Module) -> bool:
    # Told by name, so that nothing is imported for modules that have none.
    return type(part).__module__.startswith("peft.tuners.lora") and hasattr(part, "base_layer")
