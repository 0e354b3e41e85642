"""Cuts inside a run: chosen once on training rows, written down, and made again from the plan."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy import build
from understudy.build import Family
from understudy.contracts import Student
from understudy.deployed import Deployed
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx
from understudy.models.deployable import Deployable
from understudy.pipeline.members import member_module
from understudy.pipeline.work import Work
from understudy.recipe import Cut

# Shapes of a plan that is made again depend on no row; these are for its dry run.
FEW = 2
# An energy that one direction has, whatever the weights are.
LEAST = 1e-6
Plans = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What several cuts in sequence left of a network, and why.

    Attributes:
        module: raw rows in, as the one that was cut.
        plans: one per cut, as plain data.
        lines: what goes and what stays, for people.
        heads: the first line of every cut.
        importance: of the blocks, where a cut measured it.
        provenance: block paths to those of the network that was cut.
    """

    module: Deployable
    plans: list[dict[str, Any]]
    lines: list[str]
    heads: list[str]
    importance: dict[str, Any] | None
    provenance: dict[str, str] = field(default_factory=dict)


def choose(
    work: Work, cuts: Sequence[Cut], whole: Deployable, *, seed: int, rehearsal: bool = False
) -> Chosen:
    """Choose and make every cut in order; the model itself is not changed.

    Args:
        work: the run.
        cuts: in order.
        whole: what is cut.
        seed: of random choices.
        rehearsal: whether the weights are still to be learned, so that only shapes count.

    Raises:
        ModelError: a cut that cannot be made, with what can.
    """
    module, family = deepcopy(whole).eval(), None
    plans: list[dict[str, Any]] = []
    lines: list[str] = []
    heads: list[str] = []
    importance: dict[str, Any] | None = None
    provenance: dict[str, str] = {}
    for cut in map(_on_any_weights, cuts) if rehearsal else cuts:
        if cut.kind == "scratch":
            family = teachers_family(work, whole)
        rows, labels = calibration(work, build.calibration_rows(cut))
        inputs = _fed(module, rows)
        plan, found = build.plan_cut(
            cut,
            module.network,
            inputs,
            labels=labels,
            seed=seed,
            family=family,
            output="values" if work.material.task.output == "values" else "logits",
        )
        made = build.apply_cut(plan, module.network, inputs, seed=seed, family=family)
        module = _around(work, module, made.module)
        provenance = build.traced(provenance, made.provenance)
        plans.append(plan.to_data())
        lines += plan.lines()
        heads += plan.lines()[:1]
        if found is not None:
            importance = found.to_data() | {"kept": list(made.provenance.values())}
    if family is not None:  # a fresh network has nothing of the teacher's
        provenance = {}
    return Chosen(
        module=module,
        plans=plans,
        lines=lines,
        heads=heads,
        importance=importance,
        provenance=provenance,
    )


def again(work: Work, plans: Plans, whole: Deployable, *, seed: int) -> Student:
    """The structure that written plans leave of a model; its weights are still to be read."""
    module, family = deepcopy(whole).eval(), None
    provenance: dict[str, str] = {}
    for data in plans:
        if data["kind"] == "scaled":
            family = teachers_family(work, whole)
        inputs = _fed(module, calibration(work, FEW)[0])
        made = build.apply_cut(
            build.read_plan(data), module.network, inputs, seed=seed, family=family
        )
        module = _around(work, module, made.module)
        provenance = build.traced(provenance, made.provenance)
    return Student(module=module, provenance={} if family is not None else provenance)


def _on_any_weights(cut: Cut) -> Cut:
    """A cut that untrained weights do not refuse: their spectra are flat, trained ones' are not."""
    if cut.kind == "low_rank" and cut.energy is not None:
        return cut.model_copy(update={"energy": LEAST})
    return cut


def _around(work: Work, module: Deployable, network: nn.Module) -> Deployable:
    """The same preprocessing and reading of answers around another network."""
    if "channels" in work.material.facts:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Deployable(
        preprocess=module.preprocess,
        network=network,
        width=module.width,
        rescale=module.rescale,
        each_token=module.each_token,
    )


def _fed(module: Deployable, rows: Tensor) -> Tensor:
    with torch.no_grad():
        fed: Tensor = module.preprocess(rows)
    return fed


def calibration(work: Work, count: int) -> tuple[Tensor, Tensor | None]:
    """Training rows, drawn by the data's seed, and their labels where all of them have one."""
    material = work.material
    every = material.splits.train
    order = np.random.Generator(np.random.Philox(key=work.recipe.data.seed))
    positions = np.sort(order.choice(every, min(count, len(every)), replace=False))
    index = torch.from_numpy(positions)
    labels = material.labels[index]
    whole = len(material.labelled(positions)) == len(positions)
    plain = whole and labels.dtype == torch.int64 and labels.ndim == 1
    return material.inputs[index], labels if plain else None


def teachers_family(work: Work, whole: Deployable) -> Family:
    """What a fresh student of the teacher's kind is made with."""
    entry = work.recipe.teacher.model
    if entry is None:
        raise ModelError("a student of the teacher's family needs a teacher that is a `model`")
    make, arguments = build.constructor(entry, work.material.facts, work.place)
    return Family(make=make, arguments=arguments, latency_ms=lambda: latency_ms(work, whole))


def latency_ms(work: Work, module: Deployable) -> float:
    """What one row takes on one thread, from an exported file that is thrown away."""
    rows = work.material.inputs[torch.from_numpy(work.material.splits.train[:4])]
    path = work.folder / ".work" / "latency.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        export_onnx(module.eval(), rows, path, metadata={})
        measured = Deployed.open(path).latency(work.material.timed(1), batch=1, threads=1)
    finally:
        path.unlink(missing_ok=True)
    return measured.median_ms


def untrained_teacher(work: Work) -> Deployable:
    """The teacher's module before its weights, for a rehearsal."""
    return member_module(work, work.recipe.teacher)
