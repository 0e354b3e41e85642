"""A fresh student: the same seed gives the same start weights, wherever it is built."""

from collections.abc import Callable

import torch
from torch import nn

from understudy.contracts import Student


def scratch(make: Callable[[], nn.Module], *, seed: int) -> Student:
    """Build a student whose random start weights are a function of `seed`.

    The global random state is left as it was. Student and control of a seed both come from here.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(module=make())
