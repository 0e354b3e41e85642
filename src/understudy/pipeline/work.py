"""What every stage of a run stands on: the recipe, the folder, the crew, and the rows."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy import __version__
from understudy.contracts import Progress, Student
from understudy.data.lengths import row_lengths, trimmed
from understudy.data.rows import Rows
from understudy.data.splits import Splits
from understudy.data.tokens import TokenFacts
from understudy.deployed.texts import Tokenizer
from understudy.engine import Validate
from understudy.evaluate.cost import flops
from understudy.evaluate.quality import Score
from understudy.folders import Stage, fingerprint, make_folder, read_json
from understudy.models.deployable import Deployable, Rescale, Unit
from understudy.pipeline.crew import Crew
from understudy.recipe import Recipe, Source
from understudy.tasks import (
    AnyTask,
    Classification,
    Embedding,
    LanguageModel,
    PerToken,
    Regression,
    TokenClassification,
)

FACTS = "data.json"

# Counted up when a stage's result changes for the same inputs, so that old stages are redone.
REVISION = 2


# Below so many operations a step, a second thread waits longer than it works.
SMALL_STEP = 100_000_000


@contextmanager
def threads_for(module: nn.Module, inputs: Tensor, batch_size: int) -> Iterator[None]:
    """Train small models on one thread: as fast on a quiet machine, far faster on a busy one.

    The choice is a function of the model and the batch alone, so that a run is repeatable.
    """
    usual = torch.get_num_threads()
    mode = module.training
    operations = flops(module.eval(), inputs[:1])
    module.train(mode)
    if operations is not None and 3 * batch_size * operations < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def validator(score: Score) -> Validate:
    """A NumPy score as the engine's validation function."""
    return lambda outputs, labels: score.value(outputs.double().numpy(), labels.numpy())


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """The rows of a run, ready to be trained on.

    Attributes:
        rows: everything raw.
        splits: which row is for what.
        task: what is asked.
        facts: what a network's builder is told of the data.
        preprocess: makes the module between raw rows and a network.
        inputs: the raw rows as a tensor (no copy).
        labels: the labels that student and control may see: -1 or NaN where hidden.
        all_labels: every label there is; the teacher's training and the evaluation use them.
        ids: the rows' identities.
        fingerprint: of all of this.
        tokens: what the tokenizer of rows of texts is.
        pad: the id that fills such rows up, where batches are cut to their longest row; None
            where rows are no texts, or keep their length as layers of theirs are compared.
        tokenizer: of rows of texts.
        teaching: the same rows as the teacher reads them, where it has tokens of its own.
        counted: bool `[rows, longest]`, where a model is asked once per token: which ones.
        bytes: int64 `[rows, longest]`, of a language model: how many bytes of text a label is.
    """

    rows: Rows
    splits: Splits
    task: AnyTask
    facts: Mapping[str, int]
    preprocess: Callable[[], nn.Module]
    inputs: Tensor
    labels: Tensor
    all_labels: Tensor
    ids: Tensor
    fingerprint: str
    tokens: TokenFacts | None = None
    pad: int | None = None
    counted: Tensor | None = None
    tokenizer: Tokenizer | None = None
    teaching: "Material | None" = None
    bytes: Tensor | None = None

    def deployable(self, network: nn.Module, *, scaled: bool = True) -> Deployable:
        """A network with this data's preprocessing; `scaled` answers in the labels' units."""
        rescale: nn.Module | None = None
        if scaled and isinstance(self.task, Regression):
            rescale = Rescale(mean=self.task.mean, std=self.task.std)
        if scaled and isinstance(self.task, Embedding):
            rescale = Unit()
        preprocess = self.preprocess()
        if "channels" in self.facts:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Deployable(
            preprocess=preprocess,
            network=network,
            # A causal model may have more logits than there are tokens: they are padding.
            width=getattr(network, "vocabulary", self.task.width)
            if isinstance(self.task, LanguageModel)
            else self.task.width,
            rescale=rescale,
            each_token=isinstance(self.task, PerToken),
        )

    def timed(self, count: int) -> NDArray[Any]:
        """So many raw training rows to take times with; of texts the usual ones come first."""
        every = self.splits.train
        if self.tokens is None:
            return np.asarray(self.rows.inputs[every[:count]])
        sizes = row_lengths(self.inputs[torch.from_numpy(every)], self.tokens.pad)
        usual = np.argsort(np.abs(sizes - np.median(sizes)), kind="stable")
        # The first is the median text, and a batch is as varied as the rows are.
        some = np.concatenate([usual[:1], np.setdiff1d(np.arange(len(every)), usual[:1])])
        rows = self.inputs[torch.from_numpy(every[some[:count]])]
        return np.asarray(trimmed(rows, self.tokens.pad).numpy())

    def labelled(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the positions whose label student and control may see."""
        seen = self.task.labelled_rows(self.labels.numpy()[positions])
        return positions[seen]


def task_from(description: Mapping[str, Any]) -> AnyTask:
    """The task that `data.json` describes."""
    if description["name"] == "classification":
        return Classification(classes=tuple(description["classes"]))
    if description["name"] == "token_classification":
        return TokenClassification(classes=tuple(description["classes"]))
    if description["name"] == "language_model":
        return LanguageModel(
            vocabulary=int(description["vocabulary"]),
            end=int(description["end"]),
            special=tuple(int(token) for token in description["special"]),
        )
    if description["name"] == "embedding":
        return Embedding(dimension=int(description["dimension"]))
    return Regression(
        targets=tuple(description["targets"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Students that another room makes of the teacher, in the place of fresh or cut ones.

    Attributes:
        mark: everything that they are a function of, beside the teacher.
        make: the network of one, with its start weights, and where its parts came from.
        summary: what goes into `run.json` beside what every run has there.
    """

    mark: Mapping[str, Any]
    make: Callable[[], Student]
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Work:
    """One run while it runs; `given` is there where its students are made elsewhere."""

    recipe: Recipe
    place: Source
    folder: Path
    progress: Progress
    crew: Crew
    load: Callable[["Work"], Material]
    given: Given | None = None
    notes: list[str] = field(default_factory=list)
    worked: list[str] = field(default_factory=list)
    stages: dict[str, str] = field(default_factory=dict)
    _material: Material | None = None

    @property
    def material(self) -> Material:
        """The rows, loaded when they are first needed."""
        if self._material is None:
            self._material = self.load(self)
        return self._material

    @property
    def teaching(self) -> Material:
        """The rows as the teacher reads them."""
        return self.material.teaching or self.material

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage `data` found; reading it loads no row."""
        found: dict[str, Any] = read_json(self.folder / "data" / FACTS)
        return found

    @property
    def data_mark(self) -> str:
        """The fingerprint of rows, splits and scaling."""
        return fingerprint(self.facts)

    @property
    def unlabelled(self) -> bool:
        """Whether the task has hard labels, but no training row one that the student may see."""
        return self.recipe.task.has_labels and not int(self.facts["counts"]["labelled"])

    @property
    def has_control(self) -> bool:
        """Whether there is a control: as told, and where there is something to train one with."""
        return self.recipe.has_control and not self.unlabelled

    @property
    def task(self) -> AnyTask:
        """What is asked of the models."""
        return task_from(self.facts["task"])

    def stage(
        self,
        name: str,
        depends: Mapping[str, Any],
        body: Callable[[Path], Any],
        *,
        together: bool = False,
    ) -> Any:
        """Do a stage, or skip it when it is done; its summary.

        Args:
            name: the folder in the run.
            depends: everything the result is a function of.
            body: writes into the folder it is given and returns a summary (plain data).
            together: all processes work on it; otherwise only the leader does.
        """
        stage = self._stage(name, depends)
        self.stages[name] = stage.fingerprint
        if not self.crew.agree(self.crew.leads and stage.done()):
            if self.crew.leads:
                why = stage.why_not()
                if why is not None:
                    self.progress.say(f"{name}: done again, since {why}")
                stage.begin()
                self.worked.append(name)
            self.crew.wait()
            started = time.monotonic()
            summary = body(stage.work) if self.crew.leads or together else None
            self.crew.wait()
            if self.crew.leads:
                make_folder(stage.path.parent)
                stage.finish(summary, seconds=time.monotonic() - started)
            self.crew.wait()
        return stage.summary()

    def done(self, name: str, depends: Mapping[str, Any]) -> bool:
        """Whether a stage is done for these inputs."""
        return bool(self.crew.agree(self.crew.leads and self._stage(name, depends).done()))

    def _stage(self, name: str, depends: Mapping[str, Any]) -> Stage:
        told = {"revision": REVISION, "understudy": __version__, **depends}
        return Stage(run=self.folder, name=name, depends=told)
