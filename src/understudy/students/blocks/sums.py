"""Which modules are added to their own input by the code around them, as in `x = x + block(x)`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_ADD = ("add", "add_", "__add__", "__radd__", "__iadd__")
_TIMES = ("mul", "mul_", "__mul__", "__rmul__", "__imul__")


@dataclass(kw_only=True, slots=True, eq=False)
class _Made:
    """What a module gave, or a multiple of it.

    Attributes:
        tensor: held, as its identity may not be given to another one meanwhile.
        uses: how often it was computed with.
        added_to: what it was added to.
        multiple: what it was last multiplied to, in its own shape.
    """

    tensor: Tensor
    uses: int = 0
    added_to: list[Tensor] = field(default_factory=list)
    multiple: "_Made | None" = None


class Sums(TorchFunctionMode):
    """Watches what is computed with the outputs of modules."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, _Made] = {}

    def gave(self, made: Tensor | None) -> None:
        """Begin to watch what a module gave."""
        if made is not None:
            self._made.setdefault(id(made), _Made(tensor=made))

    def around(self, given: Tensor | None, made: Tensor | None) -> bool:
        """Whether what a module gave, or a multiple, was added to its input and used for no more.

        Args:
            given: what it took.
            made: what it gave.
        """
        if given is None or made is None or given is made or given.shape != made.shape:
            return False
        one = self._made.get(id(made))
        while one is not None and one.uses == 1:
            if any(other is given for other in one.added_to):
                return True
            one = one.multiple
        return False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if not any(True for _ in tensors_in([answer])):  # it asked for a shape or the like
            return answer
        name = getattr(func, "__name__", "")
        both = [value for value in args[:2] if isinstance(value, Tensor)]
        for value in tensors_in([*args, *(kwargs or {}).values()]):
            one = self._made.get(id(value))
            if one is None or answer is value:  # in place the sum is its own first side
                continue
            one.uses += 1
            if name in _ADD and len(both) == 2:
                one.added_to += [other for other in both if other is not value]
            if name in _TIMES and isinstance(answer, Tensor) and answer.shape == value.shape:
                one.multiple = self._made.setdefault(id(answer), _Made(tensor=answer))
        return answer


def tensors_in(values: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, and in sequences of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
