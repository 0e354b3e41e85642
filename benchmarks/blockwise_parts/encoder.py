"""The real sentence encoder on STS-B, for `blockwise`."""

import copy
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_loops import Remembered
from cifar_loops import folder as data_folder
from encoder_cut import embedded, sentences, teacher_parts
from torch import nn

from blockwise_parts.finish import finished, passes
from blockwise_parts.local_pass import Ground
from understudy.blockwise.assembling import Rows
from understudy.blockwise.learning import Learning
from understudy.data.sentences import TokenLoader, read_sts, token_rows
from understudy.engine import fit
from understudy.errors import ModelError
from understudy.evaluate.similarity import cosines, spearman
from understudy.losses.embeddings import CosineDistance
from understudy.objective import Objective, Term
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.students.width import cut_width, plan_width
from understudy.tasks.embedding import Embedding
from understudy.teachers.sentence_encoder import SentenceTokenizer

BATCH, LENGTH = 64, 24
# Of twelve heads, as only whole ones go.
SHARES = tuple(heads / 12 for heads in (10, 8, 7, 6, 5, 4, 3, 2, 1))
KINDS = ("keep", "narrower", "low_rank", "skip")
OFFERED: Mapping[str, tuple[float, ...]] = {
    "narrower": (0.75, 0.5, 0.25),
    "low_rank": (0.5,),
}
BUDGETS = (0.75, 0.55, 0.4)
RATES: Mapping[str, tuple[float, ...]] = {
    "blockwise": (1e-4, 3e-4, 6e-4),
    "scaled": (3e-4, 6e-4, 1.2e-3),
    "pruned": (3e-4, 6e-4),
}
# By mode: sentences to learn from, pairs to judge with; rows and epochs of the local pass.
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"train": 256, "pairs": 60, "held": 32, "local": 64, "passes": 1, "epochs": 1,
             "seeds": 2, "draws": 5},
    "reduced": {"train": 2_000, "pairs": 700, "held": 192, "local": 768, "passes": 1,
                "epochs": 1, "seeds": 3, "draws": 24},
    "full": {"train": 14_000, "pairs": 1_379, "held": 512, "local": 6_144, "passes": 2,
             "epochs": 3, "seeds": 3, "draws": 48},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairs:
    """Encoded sentences, the first of all pairs before the second of all, and the pairs' scores."""

    ids: list[list[int]]
    scores: np.ndarray


class Sentences:
    """STS-B and all-MiniLM-L6-v2; a `Ground`."""

    name, output = "encoder", "embedding"

    def __init__(self, mode: str) -> None:
        """Read the sentences, and ask the teacher for all its embeddings."""
        self.size = size = SIZES[mode]
        self.kinds, self.shares, self.budgets, self.rates = KINDS, OFFERED, BUDGETS, RATES
        self.network, tokenizer = teacher_parts()
        self.pad = tokenizer.pad
        self.local = Learning(epochs=size["passes"], batch_size=16, learning_rate=1e-3)
        self.epochs, self.draws, self.seeds = size["epochs"], size["draws"], range(size["seeds"])
        texts = sentences()
        own = max(32, size["local"] // 8)
        order = np.random.default_rng(1).permutation(len(texts))
        ids = [row[:64] for row in tokenizer.encode([texts[i] for i in order])]
        self.ids, spare = ids[: size["train"]], ids[-own:]
        told = torch.from_numpy(embedded(self.network, self.loader(self.ids)))
        self.told = Remembered(told, field=self.output)
        self.pairs = {
            "dev": self._pairs("dev", size["pairs"] // 2, tokenizer),
            "test": self._pairs("test", size["pairs"], tokenizer),
        }
        # What is recorded has one length for all, so short sentences would be padding mostly.
        long = [row for row in self.ids if len(row) >= LENGTH // 2][: size["local"]]
        count = len(long)
        rows = token_rows([*long, *spare], pad=self.pad, length=LENGTH)
        self.rows = torch.from_numpy(rows)
        # Sentences of the other half of the dev pairs than those that choose learning rates.
        self.held = torch.from_numpy(
            token_rows(self.spare[: size["held"]], pad=self.pad, length=LENGTH)
        )
        self.split = Rows(
            learn=np.arange(count),
            validation=np.arange(count, count + own),
            calibration=np.arange(min(64, count)),
        )
        self.example = self.rows[:2]

    def _pairs(self, split: str, count: int, tokenizer: SentenceTokenizer) -> _Pairs:
        """Encoded pairs, drawn from all kinds of text that the file has one after the other."""
        told = read_sts(str(data_folder() / "stsb" / f"sts-{split}.csv"))
        order = np.random.default_rng(0).permutation(len(told))
        if split == "dev":
            self.spare = tokenizer.encode([told.first[i] for i in order[count:]])
        order = order[:count]
        first, second = ([side[i] for i in order] for side in (told.first, told.second))
        return _Pairs(ids=tokenizer.encode([*first, *second]), scores=told.scores[order])

    def loader(self, ids: Any, *, seed: int | None = None) -> TokenLoader:
        """Batches of like lengths."""
        return TokenLoader(ids, pad=self.pad, batch_size=BATCH, seed=seed)

    def train(
        self, network: nn.Module, *, epochs: int, rate: float, seed: int, folder: Path
    ) -> None:
        """Cosine distance to the teacher's embeddings, as in `encoder_cut`."""
        self._fit(network, self.ids, epochs, rate, seed, folder)

    def _fit(
        self, network: nn.Module, ids: Any, epochs: int, rate: float, seed: int, folder: Path
    ) -> None:
        network.encoder.embeddings.requires_grad_(False)  # type: ignore[union-attr]
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # it copies a function, of which there is no noise to average out
        term = Term(name="cosine", loss=CosineDistance(), reads="embedding", needs=("embedding",))
        task = Embedding(dimension=self.told.answers.shape[1])
        fit(
            student=network,
            objective=Objective([term], task=task, offers=self.told.offers),
            teacher=self.told,
            training=Training(
                epochs=epochs,
                batch_size=BATCH,
                optimizer=Optimizer(kind="adamw", learning_rate=rate, weight_decay=0.01),
                schedule=LearningRate(kind="cosine", warm_up=0.05),
            ),
            loader=self.loader(ids, seed=seed),
            validation=None,
            validate=None,
            seed=seed,
            folder=folder,
        )

    def epoch_seconds(self, network: nn.Module, folder: Path) -> float:
        """From the difference of a shorter and a longer run, without what both begin with."""
        # The first one loads what the others find loaded.
        spent = []
        for count in (2 * BATCH, 2 * BATCH, 8 * BATCH):
            some = self.ids[:count]
            began = time.process_time()
            self._fit(network, some, 1, 1e-6, 0, folder / f"{count}-{began}")
            spent.append((time.process_time() - began, sum(map(len, some))))
        _, (short, few), (long, many) = spent
        return max(long - short, long / 2) / max(many - few, 1) * sum(map(len, self.ids))

    def _score(self, network: nn.Module, pairs: _Pairs, share: float = 1.0) -> float:
        half = len(pairs.scores)
        count = round(share * half)
        ids = [*pairs.ids[:count], *pairs.ids[half : half + count]]
        vectors = embedded(network.eval(), self.loader(ids))
        score = 100 * spearman(cosines(vectors[:count], vectors[count:]), pairs.scores[:count])
        return score if math.isfinite(score) else 0.0

    def validate(self, network: nn.Module) -> float:
        """Spearman's correlation on dev pairs, times 100."""
        return self._score(network, self.pairs["dev"])

    def test(self, network: nn.Module, *, share: float = 1.0) -> float:
        """On test pairs."""
        return self._score(network, self.pairs["test"], share)

    @cache  # noqa: B019 - there is one ground per process
    def pruned(self) -> dict[str, nn.Module]:
        """Every layer with the same share of its heads and hidden units, chosen by magnitude."""
        found: dict[str, nn.Module] = {}
        for share in SHARES:
            try:
                plan = plan_width(self.network, self.rows[:4], keep=share)
            except ModelError as error:
                print(f"pruned to {share}: {error}", file=sys.stderr)
                continue
            found[f"width-{share:.3g}"] = cut_width(self.network, plan, self.rows[:4]).module
        return found

    def scaled(self) -> dict[str, nn.Module]:
        """Fewer heads and hidden units in all layers alike, or fewer layers."""
        found = dict(self.pruned())
        for layers in (5, 4, 3, 2, 1):
            made: Any = copy.deepcopy(self.network)
            made.encoder.encoder.layer = made.encoder.encoder.layer[:layers]
            found[f"depth-{layers}"] = made
        return found

    def fresh(self, network: nn.Module, seed: int) -> nn.Module:
        """Layers as BERT's start; the words' vectors stay the teacher's, as they are not taught."""
        made: Any = copy.deepcopy(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in made.encoder.encoder.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
                elif isinstance(module, nn.LayerNorm):
                    module.reset_parameters()
        return made  # type: ignore[no-any-return]


def measure(mode: str, out: Path) -> dict[str, Any]:
    """The race, its figures and its table."""
    ground: Ground = Sentences(mode)
    size = SIZES[mode]
    words = (
        f"all-MiniLM-L6-v2 on STS-B (Spearman's correlation times 100; {LENGTH} tokens are timed): "
        f"{size['train']:,} sentences, {passes(size['epochs'])} of global distillation after a "
        f"local pass of {passes(size['passes'])} over {size['local']:,} sentences"
    )
    return finished(ground, out, words)
