"""On-policy batches: the student writes, the teacher says what it should have written.

A language model that learns from texts alone meets its own mistakes only when it is used. Here a
batch is replaced, with a probability, by texts that the student itself goes on with from the
beginnings of the batch's rows; the teacher is asked live, and only what the student wrote counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.deployed.sampling import Sampling
from understudy.errors import ModelError
from understudy.models.causal import CausalModel
from understudy.models.deployable import inner
from understudy.models.generating import generate
from understudy.objective.terms import scheduled
from understudy.recipe import OnPolicySection, Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class OnPolicy:
    """How often a batch is of the student's own writing, and how it writes.

    Attributes:
        share: the probability that a batch is replaced, or a schedule of it over the training.
        most: the most tokens that the student writes per row.
        prompt: how many tokens of a row it goes on from, at least; of a prompt and its completion
            it is the whole prompt.
        sampling: how it draws tokens.
        buffer: how many texts are kept to be learned from again; 0 for none.
        refresh: the probability that the texts are written now, and not drawn from the buffer.

    Raises:
        ValueError: a number is out of its range.

    Paper:
        Agarwal et al. 2024, "On-Policy Distillation of Language Models" (GKD), algorithm 1; the
        buffer is that of Ko et al. 2024, "DistiLLM", section 3.2.
    """

    share: float | int | Schedule
    most: int = 64
    prompt: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    buffer: int = 0
    refresh: float | int = 1.0

    @classmethod
    def of(cls, section: OnPolicySection) -> "OnPolicy":
        """What a recipe says."""
        sampling = Sampling(
            temperature=section.temperature, top_k=section.top_k, top_p=section.top_p
        )
        return cls(
            share=section.share,
            most=section.max_tokens,
            prompt=section.prompt,
            sampling=sampling,
            buffer=section.buffer,
            refresh=section.refresh,
        )

    def __post_init__(self) -> None:
        ends = (self.share.start, self.share.end) if isinstance(self.share, Schedule) else ()
        for share in ends or (self.share, self.refresh):
            if not 0 <= share <= 1:  # type: ignore[operator]
                raise ValueError(f"a probability must be 0 to 1, but got {share}")
        if self.most < 1 or self.prompt < 1 or self.buffer < 0:
            raise ValueError(
                "`most >= 1`, `prompt >= 1` and `buffer >= 0` must hold, but got "
                f"{self.most}, {self.prompt} and {self.buffer}"
            )
        if self.refresh < 1 and not self.buffer:
            raise ValueError(
                f"`refresh: {self.refresh}` draws texts from a buffer, but there is none: give "
                "`buffer`, a number of texts"
            )


class Written(NamedTuple):
    """One text: its tokens `[length]`, and how many of them were its prompt."""

    tokens: Tensor
    prompt: int


class Writing:
    """The batches of a training, some of them of the student's own writing.

    What is replaced, drawn and written at a step is a function of seed, step, the student's weights
    and the buffer. The buffer is a part of the checkpoint. The global random state is left alone.

    Attributes:
        counts: how many batches were `given` as they were, `written` and `replayed`.
    """

    def __init__(self, settings: OnPolicy, *, seed: int) -> None:
        """Begin without any text."""
        self._settings, self._seed = settings, seed
        self._kept: list[Written] = []
        self._next = 0
        self.counts = {"given": 0, "written": 0, "replayed": 0}

    def batch(
        self, student: nn.Module, batch: Batch, *, step: int, epoch: float, epochs: int
    ) -> Batch:
        """The batch itself, or one of texts in its place: the step's to learn from.

        The batch itself too where none of its rows has a beginning to go on from. A buffer that
        holds fewer texts than the batch has rows is replayed as the smaller batch that it is.

        Args:
            student: a causal model, or one inside its preprocessing.
            batch: rows of tokens, with a label per position.
            step: counted from 0, over the whole training.
            epoch: of training, fractional.
            epochs: of training, in all.

        Raises:
            ModelError: the student is no causal model, or the batch has no label per position.
        """
        settings = self._settings
        draw = torch.Generator().manual_seed(self._key(step, 0))
        first, second = torch.rand(2, generator=draw, dtype=torch.float64).tolist()
        if first >= scheduled(settings.share, epoch=epoch, epochs=epochs):
            self.counts["given"] += 1
            return batch
        # A buffer with less room than a batch is never more than full.
        enough = min(len(batch), settings.buffer)
        if len(self._kept) >= enough > 0 and second >= settings.refresh:
            self.counts["replayed"] += 1
            places = torch.randint(len(self._kept), (enough,), generator=draw).tolist()
            return _laid([self._kept[place] for place in places], batch)
        texts = self.write(student, batch, step=step)
        if not texts:
            self.counts["given"] += 1
            return batch
        self.counts["written"] += 1
        for text in texts if settings.buffer else ():
            self._keep(text)
        return _laid(texts, batch)

    def write(self, student: nn.Module, batch: Batch, *, step: int) -> list[Written]:
        """What the student goes on with from the beginnings of these rows, at a step.

        A beginning is of one text: it ends before the text does. A row without any is left out.
        It is asked in evaluation mode and without gradient, and left as it was.
        """
        network = inner(student)
        if not isinstance(network, CausalModel):
            raise ModelError(
                "on-policy batches are written by a causal language model, but the student is "
                f"{type(network).__name__}: leave `on_policy` out"
            )
        prompts = _prompts(batch, network, least=self._settings.prompt)
        device = next(student.parameters()).device
        draw = torch.Generator(device).manual_seed(self._key(step, 1))
        modes = {module: module.training for module in student.modules()}
        try:
            told = generate(
                network,
                prompts,
                most=self._settings.most,
                sampling=self._settings.sampling,
                generator=draw,
            )
        finally:
            # Parts of a student may rest while the others learn.
            for module, training in modes.items():
                module.training = training
        return [
            Written(torch.cat([prompt, text]).cpu(), len(prompt))
            for prompt, text in zip(prompts, told, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """Buffer and counts as tensors and numbers, for a checkpoint."""
        return {
            "tokens": [text.tokens for text in self._kept],
            "prompts": [text.prompt for text in self._kept],
            "next": self._next,
            "counts": dict(self.counts),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        sides = zip(state["tokens"], state["prompts"], strict=True)
        self._kept = [Written(tokens, prompt) for tokens, prompt in sides]
        self._next, self.counts = state["next"], dict(state["counts"])

    def _keep(self, text: Written) -> None:
        """The oldest text makes room."""
        if len(self._kept) < self._settings.buffer:
            self._kept.append(text)
        else:
            self._kept[self._next] = text
        self._next = (self._next + 1) % self._settings.buffer

    def _key(self, step: int, purpose: int) -> int:
        mixed = np.random.SeedSequence([self._seed, step, purpose])
        return int(mixed.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _prompts(batch: Batch, network: CausalModel, *, least: int) -> list[Tensor]:
    """The beginning of each row: up to the first position that is learned, or `least` tokens.

    What follows the end of a text is another text, so no beginning goes on behind one.
    """
    labels, rows = batch.labels, batch.inputs
    if labels is None or labels.shape != rows.shape:
        shape = None if labels is None else list(labels.shape)
        raise ModelError(
            "on-policy batches begin with rows of tokens that have a label per position, "
            f"{list(rows.shape)}, but got labels {shape}: leave `on_policy` out"
        )
    learned = batch.positions if batch.positions is not None else labels >= 0
    at = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    last = torch.where(learned, at, 0).amax(dim=1).clamp(min=1)
    first = torch.minimum(torch.where(learned, at, rows.shape[1]).amin(dim=1), last)
    found = [
        _beginning(*row, network=network, least=least)
        for row in zip(rows, first.tolist(), last.tolist(), strict=True)
    ]
    return [prompt[: network.context - 1] for prompt in found if len(prompt)]


def _beginning(row: Tensor, first: int, last: int, *, network: CausalModel, least: int) -> Tensor:
    """A row's prompt: `first` tokens that are given, lengthened to `least`, at most to `last`."""
    tokens = row.tolist()
    ends = {*network.stop, network.end} - {network.begin, None}
    # What the model does not see, and ends of a text that began in another row.
    start = max((n for n in range(1, first + 1) if tokens[n - 1] == network.end), default=0)
    while start < last and tokens[start] in ends:
        start += 1
    # The given prompt of a conversation may hold ends of turns; what is learned holds the text's.
    given = max(first, start + 1)
    size = min(max(given, start + least), last)
    size = next((n for n in range(given, size) if tokens[n] in ends), size)
    while size > start and tokens[size - 1] in ends:
        size -= 1
    return row[start:size]


def _laid(texts: list[Written], like: Batch) -> Batch:
    """Texts as a batch without labels, in which only what was written counts."""
    longest = max(len(text.tokens) for text in texts)
    inputs = torch.zeros((len(texts), longest), dtype=like.inputs.dtype)
    counts = torch.zeros((len(texts), longest), dtype=torch.bool)
    for number, (tokens, prompt) in enumerate(texts):
        inputs[number, : len(tokens)] = tokens
        # A position says what comes after it.
        counts[number, prompt - 1 : len(tokens) - 1] = True
    device = like.inputs.device
    return Batch(
        inputs=inputs.to(device),
        labels=torch.full(inputs.shape, -1, dtype=torch.int64, device=device),
        positions=counts.to(device),
    )
