"""The run's teacher as later stages ask it."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from understudy.contracts import Teacher
from understudy.errors import ModelError
from understudy.models.deployable import Deployable
from understudy.pipeline.language import is_language, speaker
from understudy.pipeline.members import load_teacher
from understudy.pipeline.work import Work
from understudy.teachers.torch_module import TorchTeacher


class Loaded:
    """A teacher that can be asked; it is loaded when it is, which a finished run never does."""

    def __init__(self, work: Work, summary: Mapping[str, Any]) -> None:
        """Remember where it is.

        Args:
            work: the run.
            summary: what the stage said of it: fingerprint, parameters, seconds.
        """
        self.summary = summary
        self.offers = frozenset({work.task.output})
        self._work = work

    @cached_property
    def _parts(self) -> tuple[Teacher, list[Deployable | None]]:
        return load_teacher(self._work)

    @property
    def teacher(self) -> Teacher:
        """Answers batches."""
        return self._parts[0]

    def reading(self, needs: Iterable[str]) -> Teacher:
        """The teacher as one that also offers layers.

        Args:
            needs: names of knowledge; all but its answer are layers.

        Raises:
            ModelError: it is no PyTorch module, or has no such layer.
        """
        if is_language(self._work.recipe):
            return speaker(self._work, self.module, "states")
        layers = sorted(set(needs) - self.offers)
        if not layers:
            return self.teacher
        if self.module is None:
            raise ModelError(
                f"the layers {', '.join(layers)} can be read in a PyTorch teacher only: give it as "
                "`model`"
            )
        return TorchTeacher(self.module, output=self._work.task.output, spots=layers)

    @property
    def module(self) -> Deployable | None:
        """The PyTorch module behind it, where there is one: it can be exported then."""
        modules = self._parts[1]
        return modules[0] if len(modules) == 1 else None

    @property
    def modules(self) -> list[Deployable | None]:
        """The module of every member of an ensemble, None where a member has none."""
        return self._parts[1]
