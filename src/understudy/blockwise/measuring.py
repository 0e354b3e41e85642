"""What a stitched network is worth and what it costs, measured as it would be deployed."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from understudy.blockwise.ground import Ground
from understudy.blockwise.rulers import Output, Ruler, Tally
from understudy.deployed import Deployed
from understudy.evaluate.cost import flops, parameters
from understudy.export.onnx import export_onnx
from understudy.models.deployable import Deployable
from understudy.pipeline.asking import predict
from understudy.students.blocks.chain import answer_of


def away(
    network: nn.Module,
    other: nn.Module,
    rows: Tensor,
    labels: Tensor | None,
    *,
    output: Output,
    batch_size: int = 64,
) -> tuple[float, float]:
    """How far another network's answers are from the network's, and how much worse its metric is.

    Both as `scores.damages` defines them.

    Raises:
        ModelError: one of them does not take the rows.
    """
    ruler = Ruler(labels, rows=len(rows), output=output)
    original, tally = Tally(), Tally()
    for start in range(0, len(rows), batch_size):
        here = slice(start, min(start + batch_size, len(rows)))
        truth = answer_of(network, rows[here])
        ruler.add_original(original, truth, here)
        ruler.add(tally, answer_of(other, rows[here]), truth, here)
    return ruler.damage(tally), ruler.drop(tally, original)


def score(ground: Ground, module: nn.Module) -> float:
    """The task's first score on all validation rows."""
    work = ground.work
    positions = work.material.splits.validation
    labels = work.material.all_labels.numpy()[positions]
    found = work.material.task.scores[0].value(
        predict(module.eval(), work, positions).astype("float64"), labels
    )
    return float(found)


def costs(ground: Ground, module: Deployable, path: Path) -> dict[str, float | int | None]:
    """What a model costs: its exported file's bytes and time, its parameters and operations.

    Args:
        ground: of the run.
        module: raw rows to answers.
        path: where the file is written; it stays.

    Raises:
        ExportError: it has no ONNX form.
    """
    work, latency = ground.work, ground.latency
    train = work.material.splits.train
    rows = work.material.inputs[torch.from_numpy(train[: max(4, latency.batch)])]
    export_onnx(module.eval(), rows[:4], path, metadata={})
    time = Deployed.open(path).latency(
        rows.numpy(), batch=latency.batch, threads=latency.threads, seconds=latency.seconds
    )
    return {
        "parameters": parameters(module),
        "bytes": path.stat().st_size,
        "flops": flops(module, rows[:1]),
        "ms": time.median_ms,
    }


def within(
    measured: Mapping[str, float | int | None], limits: Mapping[str, float | int]
) -> dict[str, float]:
    """By how many times each limit is passed; empty where none is."""
    found = {}
    for name, limit in limits.items():
        value = measured.get(name)
        if value is not None and value > limit:
            found[name] = float(value) / float(limit)
    return found
