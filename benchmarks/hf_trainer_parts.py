"""What our objective costs in Hugging Face's `Trainer`: its steps against plain cross entropy's.

Both train the same student on the same rows of random tokens; what is learned does not matter
here, only how long a step takes. The distilled one reads a teacher's labels from an exported store,
so that reading, collating and the loss are all in its steps. They take turns.
"""

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from understudy.integrations.transformers import (
    StoredRows,
    TokenCollator,
    TokenObjective,
    distilled,
    label_tokens,
)
from understudy.labels.columns import export_columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What is timed.

    Attributes:
        vocabulary: tokens.
        length: tokens per row.
        rows: of the data set.
        batch: rows per step.
        teacher: its width and layers.
        student: its width and layers.
        k: how many classes are listed per token.
        rounds: how often each of the two has its turn, after one that is not counted.
        steps: per turn; the first of a turn is not counted.
    """

    vocabulary: int = 4096
    length: int = 128
    rows: int = 64
    batch: int = 8
    teacher: tuple[int, int] = (256, 6)
    student: tuple[int, int] = (96, 2)
    k: int = 64
    rounds: int = 5
    steps: int = 9


class _Clock(transformers.TrainerCallback):
    """Seconds from the end of one step to the end of the next, reading and collating included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        del args, state, control, rest
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]


def trainer_over_plain(sizes: Sizes, folder: Path, *, seed: int = 0) -> dict[str, float]:
    """Step times of both, and their ratio.

    Args:
        sizes: what is timed.
        folder: an empty one, for the store.
        seed: of weights and tokens.

    Returns:
        `trainer_over_plain`, the median over rounds of the ratio of both medians of a turn, with
        the divergence alone; `trainer_over_plain_with_hard` with a share of cross entropy too;
        `plain_ms`, `distilled_ms` and `with_hard_ms`, the medians over all turns.
    """
    transformers.utils.logging.set_verbosity_error()
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, sizes.vocabulary, (sizes.rows, sizes.length), generator=draw)
    rows = {number: {"input_ids": row} for number, row in enumerate(tokens)}
    stored = _stored(rows, sizes, folder, seed)
    student = _model(*sizes.student, sizes, seed)
    soft, both = (
        distilled(transformers.Trainer, objective=TokenObjective(hard_weight=weight))
        for weight in (0, 0.1)
    )
    turns = {
        "plain": (transformers.Trainer, list(rows.values())),
        "distilled": (soft, stored),
        "with_hard": (both, stored),
    }
    times: dict[str, list[float]] = {name: [] for name in turns}
    for counts in [False, *[True] * sizes.rounds]:
        for name, (kind, given) in turns.items():
            found = _turn(kind, copy.deepcopy(student), given, sizes, folder, seed)
            if counts:
                times[name].append(statistics.median(found))
    ratio = {
        name: statistics.median(b / a for a, b in zip(times["plain"], found, strict=True))
        for name, found in times.items()
    }
    return {
        "trainer_over_plain": ratio["distilled"],
        "trainer_over_plain_with_hard": ratio["with_hard"],
        **{f"{name}_ms": 1000 * statistics.median(found) for name, found in times.items()},
    }


def _stored(
    rows: Mapping[int, Mapping[str, Any]], sizes: Sizes, folder: Path, seed: int
) -> StoredRows:
    texts = {number: row["input_ids"].tolist() for number, row in rows.items()}
    store = label_tokens(
        _model(*sizes.teacher, sizes, seed + 1),
        texts,
        folder / "labels",
        parameters={"k": sizes.k},
    )
    export_columns(store, folder / "labels.arrow")
    return StoredRows(folder / "labels.arrow", rows)


def _turn(
    kind: Any, student: torch.nn.Module, given: Any, sizes: Sizes, folder: Path, seed: int
) -> list[float]:
    clock = _Clock()
    trainer = kind(
        model=student,
        train_dataset=given,
        data_collator=TokenCollator(),
        args=transformers.TrainingArguments(
            output_dir=str(folder / "out"),
            max_steps=sizes.steps,
            per_device_train_batch_size=sizes.batch,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=False,
            seed=seed,
        ),
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock.seconds()


def _model(width: int, layers: int, sizes: Sizes, seed: int) -> transformers.LlamaForCausalLM:
    torch.manual_seed(seed)
    heads = max(1, width // 32)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=sizes.length,
            pad_token_id=0,
        )
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(trainer_over_plain(Sizes(), Path(place)), indent=2))
