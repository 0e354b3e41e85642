"""Stage `blockwise/partition`: the teacher as blocks, each timed as it is deployed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from understudy.blockwise.cost import timed
from understudy.blockwise.ground import Form, Ground
from understudy.blockwise.measuring import costs
from understudy.blockwise.words import Partition
from understudy.errors import ExportError
from understudy.folders import fingerprint, read_json, write_json

FOLDER = "blockwise"
_PARTITION = "partition.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Divided:
    """The teacher as blocks.

    Attributes:
        form: which form of its network has the blocks as modules.
        network: that form.
        partition: of it, timed.
        teacher: what the whole teacher costs where it is deployed.
        overhead: bytes of its file beyond its weights.
        mark: fingerprint of all of this.
    """

    form: Form
    network: nn.Module
    partition: Partition
    teacher: Mapping[str, float | int | None]
    overhead: int
    mark: str


def divide(ground: Ground) -> Divided:
    """Do the stage `blockwise/partition`.

    Raises:
        ModelError: the network cannot be divided so.
        ExportError: the teacher or a block has no ONNX form.
    """
    work = ground.work
    depends = {
        "teacher": ground.loaded.summary["fingerprint"],
        "data": work.data_mark,
        "partition": ground.section.partition.model_dump(mode="json"),
        "latency": ground.latency.model_dump(mode="json"),
    }
    name = f"{FOLDER}/partition"
    work.stage(name, depends, lambda folder: _divide(ground, folder))
    data = read_json(work.folder / name / _PARTITION)
    return Divided(
        form=data["form"],
        network=ground.network(data["form"]).eval(),
        partition=Partition.from_data(data["partition"]),
        teacher=data["teacher"],
        overhead=data["overhead"],
        mark=fingerprint(depends),
    )


def _divide(ground: Ground, folder: Path) -> dict[str, Any]:
    try:
        whole = costs(ground, ground.whole, folder / "teacher.onnx")
    except ExportError as error:
        raise ExportError(
            f"the teacher has no ONNX form, in which blocks are timed as they are deployed: {error}"
        ) from error
    form, found = ground.divided()
    network = ground.network(form).eval()
    return _written(ground, form, network, found, whole, folder)


def _written(
    ground: Ground,
    form: Form,
    network: nn.Module,
    found: Partition,
    whole: Mapping[str, float | int | None],
    folder: Path,
) -> dict[str, Any]:
    latency = ground.latency
    settings: dict[str, Any] = {
        "threads": latency.threads, "batch": latency.batch, "seconds": latency.seconds,
    }  # fmt: skip
    parts = timed(network, found, ground.few(max(8, latency.batch)), **settings)
    weights = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    inside = sum(float(block.ms or 0) for block in parts.blocks)
    # What lies before and behind the network counts where it is deployed.
    parts = replace(parts, rest=replace(parts.rest, ms=float(whole["ms"] or 0) - inside))
    for line in parts.lines():
        ground.work.progress.say(line)
    data = {
        "form": form,
        "partition": parts.to_data(),
        "teacher": dict(whole),
        "overhead": int(whole["bytes"] or 0) - weights,
    }
    write_json(folder / _PARTITION, data)
    return {"blocks": len(parts.blocks), "form": form}


def finer(ground: Ground, before: Divided, found: Partition, number: int) -> Divided:
    """The stage of a partition that a round has cut finer."""
    work, name = ground.work, f"{FOLDER}/partition-{number}"
    depends = {"before": before.mark, "blocks": [list(block.paths) for block in found.blocks]}
    work.stage(
        name,
        depends,
        lambda folder: _written(ground, before.form, before.network, found, before.teacher, folder),
    )
    data = read_json(work.folder / name / _PARTITION)
    mark = fingerprint(depends)
    return replace(before, partition=Partition.from_data(data["partition"]), mark=mark)
