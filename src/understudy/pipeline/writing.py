"""What language models of a run write: files that go on with a prompt, and texts side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from understudy.deployed.sampling import Sampling
from understudy.errors import ExportError
from understudy.export.decoder import export_decoder
from understudy.export.decoder_forms import decoder_int8, decoder_parity
from understudy.models.causal import CausalModel
from understudy.models.deployable import inner
from understudy.models.generating import generate
from understudy.pipeline.documents import run_coder
from understudy.pipeline.work import Work

DECODER, DECODER_INT8 = "decoder.onnx", "decoder.int8.onnx"
PROMPTS, PROMPT, MOST, CHECKED = 4, 16, 64, 32
# Cool enough to make sense, warm enough not to go in circles.
SAMPLING: Final = Sampling(temperature=0.8)


def decoders(
    work: Work, module: nn.Module, folder: Path, notes: list[str], *, small: bool
) -> dict[str, Any]:
    """Write the deployed student as a file that goes on with a prompt, step by step; its parity.

    Raises:
        ExportError: a greedy text of the file is not the model's.
    """
    network, coder = inner(module), run_coder(work)
    assert isinstance(network, CausalModel)
    stop = tuple(sorted({*network.stop, coder.end}))
    path = folder / DECODER
    try:
        export_decoder(network, path, tokenizer=coder.describe(), stop=stop)
    except ExportError as error:
        notes.append(f"no decoder could be written ({str(error).splitlines()[0]})")
        return {}
    prompts = [list(prompt) for prompt, _ in _prompts(work)[:2]]
    most = max(1, min(CHECKED, network.context - max(map(len, prompts))))
    files = {"decoder": path}
    if small:
        files["decoder-int8"] = decoder_int8(path, folder / DECODER_INT8)
    told = {}
    for name, file in files.items():
        found = decoder_parity(network, file, prompts, most=most, exact=name == "decoder")
        told[name] = {
            "rows": len(prompts),
            "max_difference": found.max_abs_difference,
            "same_answer": found.same_tokens,
        }
    return told


def samples(work: Work, models: Mapping[str, nn.Module | None]) -> list[dict[str, Any]]:
    """How models go on with the beginnings of a few test rows, drawn from one seed for all.

    Args:
        work: the run.
        models: by name; None where there is no module to ask.
    """
    coder = run_coder(work)
    some = _prompts(work)
    prompts = [prompt for prompt, _ in some]
    written: dict[str, list[str]] = {}
    for name, module in models.items():
        network = None if module is None else inner(module)
        if not isinstance(network, CausalModel):
            continue
        room = min(MOST, network.context - max(map(len, prompts)))
        if room < 1:
            continue
        draw = torch.Generator().manual_seed(work.recipe.data.seed)
        found = generate(
            network, prompts, most=room, sampling=SAMPLING, generator=draw, stop=(coder.end,)
        )
        written[name] = [coder.decode(row.tolist()) for row in found]
    return [
        {
            "prompt": coder.decode(prompt),
            "text": coder.decode(rest),
            "models": {name: texts[number] for name, texts in written.items()},
        }
        for number, (prompt, rest) in enumerate(some)
    ]


def _prompts(work: Work) -> list[tuple[list[int], list[int]]]:
    """Beginnings of test rows and how the texts really go on, spread over all of them."""
    material = work.material
    every = material.splits.test
    at = every[np.linspace(0, len(every) - 1, min(PROMPTS, len(every))).astype(np.int64)]
    tokens, labels = material.inputs.numpy()[at], material.all_labels.numpy()[at]
    found = []
    for row, goals in zip(tokens, labels, strict=True):
        # Of a pair the whole prompt; of a text so many tokens, before the end of the first.
        first = int((goals >= 0).argmax()) + 1
        ends = np.flatnonzero((goals < 0) & (np.arange(len(goals)) >= first))
        stop = int(ends[0]) if len(ends) else len(row)
        begin = first if first > 1 else max(1, min(PROMPT, len(row) // 4, stop - 1))
        rest = _until(row[begin : begin + MOST], stop - begin)
        # A prompt that fills its row loses its beginning, or there is no room to go on.
        found.append((row[max(0, begin - len(row) + 1) : begin].tolist(), rest))
    return found


def _until(row: Sequence[int] | np.ndarray, stop: int) -> list[int]:
    return [int(token) for token in row[: max(0, stop)]]
