"""What references of losses on logits share: NumPy, float64, one row at a time."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

quickly = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**31 - 1)
temperatures = st.floats(0.5, 10.0)


def random_logits(student, generator):
    """A teacher of the student's shape."""
    return 2 * torch.randn(student.shape, generator=generator).to(student.dtype)


def random_labels(student, generator):
    """One class per row."""
    return torch.randint(0, student.shape[1], student.shape[:1], generator=generator)


def beside_labels(student, generator):
    """The same, by name."""
    return {"labels": random_labels(student, generator)}


def two_sets(seed, rows=6, classes=10, scale=3.0):
    """Student and teacher."""
    return scale * np.random.default_rng(seed).standard_normal((2, rows, classes))


def softmax(row):
    """Of one row."""
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def kl(p, q):
    """Of two distributions without zeros, class by class."""
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True))


def slope(function, point, step=1e-6):
    """Central differences of a number, one coordinate at a time."""
    found = np.zeros_like(point)
    for place in np.ndindex(point.shape):
        ahead, behind = point.copy(), point.copy()
        ahead[place] += step
        behind[place] -= step
        found[place] = (function(ahead) - function(behind)) / (2 * step)
    return found


def agrees(loss, reference, student, *, rtol=1e-9):
    """The mean of a loss and its gradient are those of a reference that gives one number."""
    learner = torch.tensor(student, requires_grad=True)
    mean = loss(learner).mean()
    mean.backward()
    np.testing.assert_allclose(mean.item(), reference(student), rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(
        learner.grad.numpy(), slope(reference, student), rtol=1e-4, atol=1e-6
    )
