"""The chain of one arm: cuts between its phases, and what is kept after every step."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.export.ranges import LearnedRange
from understudy.folders import read_json, write_json
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.pipeline.cutting import FEW, again, calibration, choose
from understudy.pipeline.work import Work
from understudy.recipe import Link, PruneStep, QuantizeStep
from understudy.students.lora import merged
from understudy.students.quantized.aware import finish_aware, prepare_aware
from understudy.students.sparse import Masks, Sparsity

RANGES = "ranges.json"


def before(
    work: Work,
    student: Deployable,
    link: Link,
    number: int,
    folder: Path,
    *,
    seed: int,
    pruned: bool,
) -> None:
    """Do to a student what a link does to it before it learns: a cut, or rounding.

    A cut is chosen once, by the leading process, and read by every one.

    Args:
        work: the run.
        student: changed in place.
        link: the piece of the chain.
        number: which one it is.
        folder: of the arm.
        seed: of random choices.
        pruned: whether weights that are zero shall stay so.
    """
    if link.cuts:
        _cut(work, student, link, number, folder, seed)
    if link.aware is not None:
        student.network = _rounding(work, student, link.aware, pruned=pruned)


def _rounding(
    work: Work, student: Deployable, step: QuantizeStep, *, pruned: bool = False, rows: int = 0
) -> nn.Module:
    raw, _ = calibration(work, rows or step.calibration_rows)
    with torch.no_grad():
        fed = student.preprocess(raw)
    return prepare_aware(student.network, fed, reduce_range=step.reduce_range, keep_zeros=pruned)


def _cut(work: Work, student: Deployable, link: Link, number: int, folder: Path, seed: int) -> None:
    written, weights = cut_files(folder, number)
    if not work.crew.agree(written.is_file()) and work.crew.leads:
        folder.mkdir(parents=True, exist_ok=True)
        chosen = choose(work, link.cuts, student, seed=seed)
        for line in chosen.heads:
            work.progress.say(f"step {link.step + 1}: {line}")
        save_weights(chosen.module, weights)
        write_json(written, {"plans": chosen.plans, "importance": chosen.importance})
    work.crew.wait()
    made = again(work, read_json(written)["plans"], student, seed=seed).module
    load_into(made, read_weights(weights), source=str(weights))
    assert isinstance(made, Deployable)
    student.network = made.network


def cut_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Where the plans of a link's cuts are, and the weights right after them."""
    return folder / f"cut-{number + 1}.json", folder / f"cut-{number + 1}.safetensors"


def after(work: Work, student: Deployable, link: Link, folder: Path) -> None:
    """What is kept when a link is done: the float network behind the rounding, a step's weights."""
    if link.aware is not None:
        student.network, ranges = finish_aware(student.network)
        if work.crew.leads:
            write_json(folder / RANGES, [one.to_data() for one in ranges])
    # After the last step they are the arm's own.
    if link.last and link.step < last_step(work) and work.crew.leads:
        save_weights(student, folder / step_file(link.step))
    work.crew.wait()


def last_step(work: Work) -> int:
    """The last step that does anything to an arm; what follows is for its file alone."""
    return max(link.step for link in work.recipe.chain if _works(link))


def _works(link: Link) -> bool:
    return bool(link.cuts or link.phases)


def step_file(step: int) -> str:
    """The weights after a step."""
    return f"step-{step + 1}.safetensors"


def dry_run(work: Work, start: Deployable, *, seed: int) -> Deployable:
    """What the steps would leave of a student if it learned nothing: its structure at the end.

    Raises:
        ModelError: a cut that cannot be made, weights that cannot be pruned, or layers that cannot
            be rounded.
    """
    student, pruned = deepcopy(start).eval(), False
    for link in work.recipe.chain:
        if link.cuts:
            student = choose(work, link.cuts, student, seed=seed, rehearsal=True).module
        if link.sparsity is not None:
            zeros, pruned = sparsity(link.sparsity, pruned=pruned), True
            assert zeros is not None
            Masks(student, zeros).finish(student)
        if link.aware is not None:
            student.network, _ = finish_aware(_rounding(work, student, link.aware, rows=FEW))
    return student


def sparsity(step: PruneStep | None, *, pruned: bool) -> Sparsity | None:
    """How the engine makes weights zero while it trains; what an earlier step made stays zero."""
    if step is None:
        return Sparsity(to="zeros", layers=("*",)) if pruned else None
    return Sparsity(
        to=step.to,
        schedule=step.schedule,
        begin=step.begin,
        end=step.end,
        layers=step.layers,
        hold=pruned,
    )


def as_after(
    work: Work, start: Deployable, folder: Path, *, seed: int, step: int | None = None
) -> Deployable:
    """The structure of an arm after a step (the last one by default), with its weights.

    Args:
        work: the run.
        start: the arm's student at its start.
        folder: of the arm.
        seed: of the arm.
        step: which step of the recipe.
    """
    module = start
    for number, link in enumerate(work.recipe.chain):
        if step is not None and link.step > step:
            break
        if link.cuts:
            plans = read_json(cut_files(folder, number)[0])["plans"]
            made = again(work, plans, module, seed=seed).module
            assert isinstance(made, Deployable)
            module = made
        if link.aware is not None:
            # Norms are folded into their layers by it.
            module.network, _ = finish_aware(_rounding(work, module, link.aware, rows=FEW))
    if step is not None and step >= last_step(work):
        step = None
    path = folder / ("weights.safetensors" if step is None else step_file(step))
    load_into(module, read_weights(path), source=str(path))
    module.network = merged(module.network)
    return module.eval()


def learned_ranges(folder: Path) -> tuple[LearnedRange, ...]:
    """The ranges that an arm has learned with its rounding; none where it has not."""
    path = folder / RANGES
    found = read_json(path) if path.is_file() else []
    return tuple(LearnedRange.from_data(one) for one in found)


def chain_marks(work: Work) -> list[dict[str, Any]]:
    """What an arm is a function of beside its phases."""
    return [
        {
            "cuts": [cut.model_dump(mode="json") for cut in link.cuts],
            "sparsity": _kept(link.sparsity),
            "aware": _kept(link.aware),
            "phases": len(link.phases),
        }
        for link in work.recipe.chain
        if _works(link)
    ]


def _kept(step: Any) -> Mapping[str, Any] | None:
    skip = {"objective", "phases", "training", "control"}
    return None if step is None else step.model_dump(mode="json", exclude=skip)
