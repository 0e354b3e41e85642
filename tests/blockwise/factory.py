"""A user's own candidates; a file beside the tests, found by its path."""

import torch
from torch import nn


class Around(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.small = nn.Linear(width, width)

    def forward(self, stream, *args, **kwargs):
        return stream + self.small(stream)


def around(*, piece, call, noise=0.0):
    made = Around(call.stream.shape[-1])
    return made if not noise else made.requires_grad_(False)


def broken(*, piece, call):
    raise ZeroDivisionError("no such thing")


def odd(*, piece, call):
    return torch.zeros(3)
