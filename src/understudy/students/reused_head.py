"""A student that answers with its teacher's own last layer, and learns only the features for it."""

from collections import OrderedDict
from copy import deepcopy

import torch
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError
from understudy.features.resizing import Resize, resize
from understudy.students.network_end import ONE, NetworkEnd, evaluating, network_end


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
    ReLU is left out where the teacher's features have negative numbers. A teacher whose last layer
    reads a map place by place (averaged to 2x2, say) gets the same from the projector, which ends
    by laying these places side by side as channels. Everywhere else the projector is one linear
    layer before the last.

    The projector learns, and counts as the student's, in its size and in its exported file. The
    reused layer is a frozen copy. The student's forward pass stays its own, pooling included.

    `provenance` maps the projector to the layer of the teacher whose features it learns to give:
    the pair that a term on features compares. A larger map of the teacher is brought to the
    student's size by `pool`; where a vector meets a map, `flat` averages the map. Of a map that is
    read place by place, or only where it is positive, it is what the two last layers read that is
    compared: `PATH:input` for the student, and for the teacher unless a layer gives it.
    `provenance` also maps the reused layer to the teacher's. A projector on maps lies in
    `FEATURES.projector`, what was there in `FEATURES.features`; one before the head lies in
    `HEAD.projector`, the reused layer then in `HEAD.classifier`.

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
    own = network_end("student", student, rows, head=student_head, features=student_features)
    goal = network_end("teacher", teacher, rows, head=teacher_head, features=teacher_features)
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
    # In the student's numbers and where it is: the teacher may lie elsewhere, in others.
    like = own.head.weight
    projector, classifier = (
        projector.to(like.device, like.dtype),
        classifier.to(like.device, like.dtype),
    )
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
    whole = teacher_features or (before and goal.direct)
    imitated = goal.features_path if whole else goal.vector_path
    if not imitated and goal.head_path:
        imitated = f"{goal.head_path}:input"
    if before and not whole:  # vectors, which the student's own forward makes of the projection
        place = f"{layer}:input"
    if imitated:
        provenance[place] = imitated
    return Student(module=module, provenance=provenance)


class Places(nn.Module):
    """Maps averaged to a grid, its places laid side by side as channels that are equal all over.

    Equal, so that a student that averages them afterwards, in whatever way, changes nothing.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, maps: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to `[batch, channels x places, height, width]`."""
        vectors = resize(maps, self.grid).flatten(1)
        return vectors[:, :, None, None].expand(-1, -1, maps.shape[2], maps.shape[3])

    def extra_repr(self) -> str:
        """Its constant, for printing."""
        return f"grid={self.grid}"


def _projector(
    own: NetworkEnd, goal: NetworkEnd, *, factor: int, named: bool
) -> tuple[nn.Module, bool]:
    """The projector, and whether it belongs behind the student's features, not before its head."""
    width = goal.head.in_features
    if own.features.ndim == 4 and (named or (own.direct and _reach(own, goal))):
        return _of_maps(own, goal, factor=factor), True
    if named:
        if own.features.ndim != 2:
            raise ModelError(
                "`student_features` must name a layer that gives maps or vectors, but "
                f"`{own.features_path}` gives {list(own.features.shape)}: name another"
            )
        return nn.Linear(own.features.shape[1], width), True
    return nn.Linear(own.head.in_features, width), False


def _reach(own: NetworkEnd, goal: NetworkEnd) -> bool:
    """Whether the teacher ends in a map, of places that the student's can be averaged to."""
    if goal.features.ndim != 4:
        return False
    return goal.grid[0] <= own.features.shape[2] and goal.grid[1] <= own.features.shape[3]


def _of_maps(own: NetworkEnd, goal: NetworkEnd, *, factor: int) -> nn.Sequential:
    maps, width, grid = own.features, goal.head.in_features, ONE
    steps: list[nn.Module] = []
    if _reach(own, goal):
        grid = goal.grid
        size = tuple(map(min, maps.shape[2:], goal.features.shape[2:]))
        if size != tuple(maps.shape[2:]):
            steps.append(Resize((size[0], size[1])))
    channels = width // (grid[0] * grid[1])
    inner = max(1, channels // factor)
    for before, after, side in ((maps.shape[1], inner, 1), (inner, inner, 3), (inner, channels, 1)):
        convolution = nn.Conv2d(before, after, kernel_size=side, padding=side // 2, bias=False)
        steps += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    # What a ReLU gives cannot imitate features that have a sign.
    if (goal.features < 0).any():
        steps.pop()
    return nn.Sequential(*steps) if grid == ONE else nn.Sequential(*steps, Places(grid))


def _try(module: nn.Module, rows: Tensor, head: nn.Linear) -> None:
    try:
        with evaluating(module), torch.no_grad():
            module(rows)
    except Exception as error:  # whatever the student's own forward raises
        raise ModelError(
            f"the projector gives the teacher's last layer {head.in_features} numbers per row, but "
            f"the student's own forward does not bring them there ({error}): name the layer just "
            "before its last one as `student_features`, or leave that out"
        ) from error
