"""A student that answers with its teacher's own last layer, and learns only the features for it."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.features.resizing import Resize


def reused_head(
    student: nn.Module,
    teacher: nn.Module,
    rows: Tensor,
    *,
    seed: int,
    student_head: str = "",
    teacher_head: str = "",
    student_features: str = "",
    teacher_features: str = "",
    factor: int = 2,
) -> Student:
    """A copy of the student with a projector, and with the teacher's last layer in its own's place.

    Where both networks average a map over space before their last layer, the projector is the
    authors': 1x1, 3x3 and 1x1 convolutions, each with batch normalisation and ReLU, on the
    student's map, which is averaged down to the size of the teacher's where it is larger. The last
    ReLU is left out where the teacher's features have negative numbers. Everywhere else the
    projector is one linear layer before the last.

    The projector learns, and counts as the student's, in its size and in its exported file. The
    reused layer is a frozen copy. The student's forward pass stays its own, pooling included.

    `provenance` maps the projector to the layer of the teacher whose features it learns to give:
    the pair that a term on features compares. A larger map of the teacher is brought to the
    student's size by `pool`; where a vector meets a map, `flat` averages the map. Where no layer
    gives what the teacher's last one reads, its input is to be compared. `provenance` also
    maps the reused layer to the teacher's. A projector on maps lies in `FEATURES.projector`, what
    was there in `FEATURES.features`; one before the head lies in `HEAD.projector`, the reused layer
    then in `HEAD.classifier`.

    Args:
        student: any module that ends in a linear layer on one vector per row; it is not changed.
        teacher: likewise; it is not changed.
        rows: two raw rows or more that both take, for a dry run.
        seed: the projector's start weights are a function of it.
        student_head: path of the student's last layer; by default it is found.
        teacher_head: path of the teacher's.
        student_features: path of the student's layer to project, one that gives maps or vectors;
            by default the map before its global average pooling, if there is one.
        teacher_features: path of the teacher's layer to imitate.
        factor: how many times narrower than the teacher's map the projector is inside.

    Raises:
        ModelError: a head or a layer is not found, or the parts do not fit together.

    Paper:
        Chen et al. 2022, "Knowledge Distillation with the Reused Teacher Classifier" (SimKD),
        section 3.2.

    Example:
        >>> from understudy.models import MLP
        >>> small, large = MLP(inputs=6, width=3, hidden=[4]), MLP(inputs=6, width=3, hidden=[9])
        >>> made = reused_head(small, large, torch.zeros(2, 6), seed=0)
        >>> made.module(torch.zeros(2, 6)).shape
        torch.Size([2, 3])
    """
    if factor < 1:
        raise ModelError(f"`factor >= 1` must hold, but got {factor=}: the authors use 2")
    own = _look("student", student, rows, head=student_head, features=student_features)
    goal = _look("teacher", teacher, rows, head=teacher_head, features=teacher_features)
    if own.head.out_features != goal.head.out_features:
        raise ModelError(
            "student and teacher must answer with as many numbers, but their last layers give "
            f"{own.head.out_features} and {goal.head.out_features}: give the student's last layer "
            f"{goal.head.out_features} outputs"
        )
    if not own.head_path:
        raise ModelError("the student must have layers before its last one, but it is one layer")
    module = deepcopy(student)
    classifier = deepcopy(goal.head).requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector, before = _projector(own, goal, factor=factor, named=bool(student_features))
    if before:
        parts = OrderedDict(features=module.get_submodule(own.features_path), projector=projector)
        module.set_submodule(own.features_path, nn.Sequential(parts))
        module.set_submodule(own.head_path, classifier)
        place, layer = f"{own.features_path}.projector", own.head_path
    else:
        both = OrderedDict(projector=projector, classifier=classifier)
        module.set_submodule(own.head_path, nn.Sequential(both))
        place, layer = f"{own.head_path}.projector", f"{own.head_path}.classifier"
    _try(module, rows, goal.head)
    provenance = {layer: goal.head_path} if goal.head_path else {}
    imitated = goal.features_path if before or teacher_features else goal.vector_path
    if imitated:
        provenance[place] = imitated
    return Student(module=module, provenance=provenance)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What one module did in a dry run, in the order in which modules ended."""

    path: str
    module: nn.Module
    given: Tensor | None
    made: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    """How a network ends: its last layer, and the features that it reads.

    Attributes:
        head: the last layer.
        head_path: where it is.
        features: the map whose mean the last layer reads, or the vectors that it reads.
        features_path: the layer that gives them; empty where none does.
        vector_path: the layer that gives the very vectors, or else the map.
    """

    head: nn.Linear
    head_path: str
    features: Tensor
    features_path: str
    vector_path: str


def _look(side: str, network: nn.Module, rows: Tensor, *, head: str, features: str) -> _End:
    with _evaluating(network):
        runs = _dry_run(side, network, rows)
    once = {run.path: run for run in runs}
    for path in (head, features):
        if path and path not in once:
            raise ModelError(
                f"the {side} has no layer `{path}` that runs just once; there are: "
                f"{', '.join(sorted(p for p in once if p))}"
            )
    last = once[head] if head else _last(runs)
    if last is None or not isinstance(last.module, nn.Linear) or last.given is None:
        raise ModelError(
            f"the last layer of the {side} must be nn.Linear, but it is "
            f"{type(last.module).__name__ if last else 'not to be seen'}: name it with "
            f"`{side}_head`, or choose another student"
        )
    if last.given.ndim != 2:
        raise ModelError(
            f"the last layer of the {side} must read one vector per row, [batch, width], but it "
            f"reads {list(last.given.shape)}: choose another student"
        )
    found = once[features] if features else _giving(runs, last.given, maps_first=True)
    vector = _giving(runs, last.given, maps_first=False)
    made = found.made if found and found.made is not None else last.given
    return _End(
        head=last.module,
        head_path=last.path,
        features=made,
        features_path=found.path if found else "",
        vector_path=vector.path if vector else "",
    )


def _dry_run(side: str, network: nn.Module, rows: Tensor) -> list[_Run]:
    runs: list[_Run] = []

    def keep(path: str, module: nn.Module, args: Any, made: Any) -> None:
        given = args[0] if args and isinstance(args[0], Tensor) else None
        kept = made.detach() if isinstance(made, Tensor) else None
        runs.append(_Run(path=path, module=module, given=given, made=kept))

    hooks = [
        module.register_forward_hook(lambda m, args, made, path=path: keep(path, m, args, made))
        for path, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(rows)
    except Exception as error:  # whatever the user's own forward raises
        raise ModelError(
            f"the {side} does not take the example rows {list(rows.shape)} ({error}): pass two "
            "rows or more as they are in the data"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(run.path for run in runs)
    return [run for run in runs if times[run.path] == 1]


def _last(runs: list[_Run]) -> _Run | None:
    # A module around others ends after them, with weights of its own or without.
    inner = [run for run in runs if not any(True for _ in run.module.children())]
    weighted = [run for run in inner if any(True for _ in run.module.parameters())]
    return weighted[-1] if weighted else None


def _giving(runs: list[_Run], read: Tensor, *, maps_first: bool) -> _Run | None:
    """What gives the map whose mean the last layer reads, or the vectors that it reads."""
    maps = [run for run in runs if run.made is not None and _averages_to(run.made, read)]
    vectors = [run for run in runs if run.made is not None and _same(run.made, read)]
    # The outermost of several modules with one outcome ends last.
    best = (maps or vectors) if maps_first else (vectors or maps)
    return best[-1] if best else None


def _averages_to(made: Tensor, read: Tensor) -> bool:
    if made.ndim != 4 or made.shape[2] * made.shape[3] == 1:
        return False
    return _same(made.mean(dim=(2, 3)), read)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def _projector(own: _End, goal: _End, *, factor: int, named: bool) -> tuple[nn.Module, bool]:
    """The projector, and whether it belongs behind the student's features, not before its head."""
    width = goal.head.in_features
    if own.features.ndim == 4 and (named or goal.features.ndim == 4):
        return _of_maps(own.features, goal, width, factor=factor), True
    if named:
        if own.features.ndim != 2:
            raise ModelError(
                "`student_features` must name a layer that gives maps or vectors, but "
                f"`{own.features_path}` gives {list(own.features.shape)}: name another"
            )
        return nn.Linear(own.features.shape[1], width), True
    return nn.Linear(own.head.in_features, width), False


def _of_maps(own: Tensor, goal: _End, width: int, *, factor: int) -> nn.Sequential:
    inner = max(1, width // factor)
    steps: list[nn.Module] = []
    if goal.features.ndim == 4:
        size = min(own.shape[2], goal.features.shape[2]), min(own.shape[3], goal.features.shape[3])
        if size != tuple(own.shape[2:]):
            steps.append(Resize(size))
    for before, after, side in ((own.shape[1], inner, 1), (inner, inner, 3), (inner, width, 1)):
        convolution = nn.Conv2d(before, after, kernel_size=side, padding=side // 2, bias=False)
        steps += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    # What a ReLU gives cannot imitate features that have a sign.
    signed = bool((goal.features < 0).any())
    return nn.Sequential(*(steps[:-1] if signed else steps))


def _try(module: nn.Module, rows: Tensor, head: nn.Linear) -> None:
    try:
        with _evaluating(module), torch.no_grad():
            module(rows)
    except Exception as error:  # whatever the student's own forward raises
        raise ModelError(
            f"the projector gives the teacher's last layer {head.in_features} numbers per row, but "
            f"the student's own forward does not bring them there ({error}): name the layer just "
            "before its last one as `student_features`, or leave that out"
        ) from error


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: a dry run must not move running statistics."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
