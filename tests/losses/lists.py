"""Two sets of logits, and what a store keeps of them: what tests of listed outcomes share."""

import math

import torch
from torch import nn

CLASSES = 10


def two_sets(seed, rows=5, classes=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, rows, classes, generator=generator, dtype=torch.float64)


def top(teacher, k):
    """What a store keeps of these logits: ids, log mass and the rest."""
    log_mass = teacher.to(torch.promote_types(teacher.dtype, torch.float32)).log_softmax(dim=1)
    kept, ids = log_mass.topk(min(k, teacher.shape[1]), dim=1)
    return ids, kept, log_mass.scatter(1, ids, -torch.inf).logsumexp(dim=1)


def padded(ids, log_mass, rest):
    """The same lists with two places that hold nothing, one of them in front."""
    ids = nn.functional.pad(ids, (1, 1), value=-1)
    return ids, nn.functional.pad(log_mass, (1, 1), value=-math.inf), rest


def value_and_gradient(loss, student, *listed, **constants):
    student = student.detach().clone().requires_grad_()
    values = loss(student, *listed, **constants)
    return values.detach(), torch.autograd.grad(values.sum(), student)[0]
