"""The ways to run one module, and the copies of it that they share."""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final
from weakref import finalize

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.deployed import Deployed
from understudy.errors import ModelError
from understudy.export.onnx import cause, export_onnx
from understudy.models.deployable import Deployable
from understudy.teachers.backends.arithmetic import without_bfloat16
from understudy.teachers.backends.folding import NORMS, fold
from understudy.teachers.backends.pieces import Answer, InPieces


class Forms:
    """A module in evaluation mode, in the forms that backends share; each is made when needed.

    The module that is given is never changed. It is used as it is where it is in evaluation mode
    and on the device; else a copy is.
    """

    def __init__(self, module: nn.Module, rows: Tensor) -> None:
        """Forms of `module`, on the device of `rows`, for raw rows like `rows`."""
        self._module = module
        self.rows = rows.detach()
        self.device = rows.device

    @cached_property
    def plain(self) -> nn.Module:
        """As it was given."""
        elsewhere = any(p.device != self.device for p in self._module.parameters())
        learning = any(part.training for part in self._module.modules())
        return self._copy() if elsewhere or learning else self._module

    @cached_property
    def channels_last(self) -> nn.Module:
        """A copy whose convolutions store channels last, the order they are computed in.

        Raises:
            ModelError: there is no convolution of images.
        """
        if not any(p.ndim == 4 for p in self._module.parameters()):
            raise ModelError("the module has no convolution of images")
        return self._channels_last()

    @cached_property
    def folded(self) -> nn.Module:
        """A channels-last copy in which batch norms are part of the layer before them.

        Raises:
            ModelError: there is nothing to fold, or the module's forward cannot be traced.
        """
        if not any(isinstance(part, NORMS) for part in self._module.modules()):
            raise ModelError("the module has no batch norm")
        copy = self._channels_last()
        # Only the network: what stands around it looks at its rows, which no trace can do.
        network = copy.network if isinstance(copy, Deployable) else copy
        try:
            folded, count = fold(network)
        except Exception as error:  # whatever a forward does when it is traced
            raise ModelError(f"its forward cannot be traced: {cause(error)}") from error
        if not count:
            raise ModelError("no batch norm stands right behind a convolution or linear layer")
        if not isinstance(copy, Deployable):
            return folded
        copy.network = folded
        return copy

    def opened(self, threads: int) -> Deployed:
        """Its ONNX file in ONNX Runtime, with so many threads within a call.

        Raises:
            ModelError: the rows are not on the CPU.
            ExportError: the module cannot be exported.
        """
        if self.device.type != "cpu":
            raise ModelError(
                f"ONNX Runtime answers on the CPU here, but the rows are on {self.device}"
            )
        return Deployed.open(self._file, threads=threads)

    @cached_property
    def _file(self) -> Path:
        example = self.rows[:2] if len(self.rows) > 1 else torch.cat([self.rows] * 2)
        folder = TemporaryDirectory()
        finalize(self, folder.cleanup)  # it is there as long as these forms are
        path = Path(folder.name) / "teacher.onnx"
        return export_onnx(self.plain, example, path, metadata={})

    def _copy(self) -> nn.Module:
        copy: nn.Module = deepcopy(self._module)
        return copy.eval().requires_grad_(False).to(self.device)

    def _channels_last(self) -> nn.Module:
        copy = self._copy()
        return copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One way to run a module.

    Attributes:
        title: its name in a sentence.
        make: the answering function; raises where it cannot be had.
        pays_from: seconds that a pass in eager must take before making it can pay for itself.
        padded: whether it is made for one number of rows.
        parallel: whether each thread takes a piece of its own.
        hopeless: why it is not tried on a device unless it is asked for, or None.
    """

    title: str
    make: Callable[[Forms], Answer]
    pays_from: float
    padded: bool = False
    parallel: bool = False
    hopeless: Callable[[torch.device], str | None] | None = None


def _eager(forms: Forms) -> Answer:
    return forms.plain


def _channels_last(forms: Forms) -> Answer:
    return forms.channels_last


def _folded(forms: Forms) -> Answer:
    return forms.folded


def _bf16(forms: Forms) -> Answer:
    module = _first_of(forms, "folded", "channels_last")

    def answer(rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, dtype=torch.bfloat16):
            found: Tensor = module(rows)
        return found.float()

    return answer


def _compiled(forms: Forms) -> Answer:
    if getattr(getattr(forms.plain, "preprocess", None), "form", "") == "text":
        raise ModelError("texts are of many lengths, and it would be compiled for each")
    return torch.compile(_first_of(forms, "folded", "channels_last"), dynamic=False)


def _session(forms: Forms) -> Answer:
    return _answers(forms, threads=torch.get_num_threads())


def _sessions(forms: Forms) -> Answer:
    if torch.get_num_threads() == 1:
        raise ModelError("there is one thread")
    return _answers(forms, threads=1)


def _answers(forms: Forms, *, threads: int) -> Answer:
    deployed = forms.opened(threads)

    def answer(rows: Tensor) -> Tensor:
        return torch.from_numpy(deployed.predict(rows.numpy(), batch=max(len(rows), 1)))

    return answer


def _first_of(forms: Forms, *names: str) -> nn.Module:
    for name in names:
        try:
            form: nn.Module = getattr(forms, name)
        except ModelError:
            continue
        return form
    return forms.plain


# Eager first: it is what the others are compared with.
BACKENDS: Final[Mapping[str, Backend]] = MappingProxyType(
    {
        "eager": Backend(title="eager", make=_eager, pays_from=0.0),
        "channels_last": Backend(title="channels-last", make=_channels_last, pays_from=15.0),
        "folded": Backend(title="folded batch norm", make=_folded, pays_from=15.0),
        "bf16": Backend(title="bfloat16", make=_bf16, pays_from=15.0, hopeless=without_bfloat16),
        "onnxruntime": Backend(title="ONNX Runtime", make=_session, pays_from=45.0),
        "onnxruntime_pieces": Backend(
            title="ONNX Runtime with a piece per thread",
            make=_sessions,
            pays_from=45.0,
            parallel=True,
        ),
        "compile": Backend(title="compiled", make=_compiled, padded=True, pays_from=120.0),
    }
)


def prepare(name: str, forms: Forms, *, output: str, piece: int | None = None) -> InPieces:
    """The teacher in one backend, warm: it has answered the rows of `forms` once.

    Args:
        name: a key of `BACKENDS`.
        forms: of its module.
        output: what its answer is called as knowledge, `logits` or `values`.
        piece: rows per call; None: batches as a whole (a compiled one is made for the number of
            rows in `forms`).

    Raises:
        ModelError: this backend cannot be had for this module.
    """
    padded, parallel = BACKENDS[name].padded, BACKENDS[name].parallel
    size = piece or (len(forms.rows) if padded else None)
    threads = torch.get_num_threads() if parallel else 1
    if parallel:  # so that a batch keeps all of them busy
        size = min(size or len(forms.rows), ceil(len(forms.rows) / threads)) or 1
    try:
        with warnings.catch_warnings():
            # Compilers and exporters tell their own developers of what is out of date.
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            answer = BACKENDS[name].make(forms)
            teacher = InPieces(
                answer,
                output=output,
                device=forms.device,
                piece=size,
                padded=padded,
                threads=threads,
            )
            teacher(Batch(inputs=forms.rows))
    except ModelError:
        raise
    except Exception as error:  # whatever copying, tracing, compiling or exporting met
        raise ModelError(cause(error)) from error
    return teacher
