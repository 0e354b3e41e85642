"""Students of texts that begin with what their teacher knows of every token."""

from copy import deepcopy
from typing import Protocol, TypeGuard

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from understudy.contracts import Student
from understudy.errors import ModelError


class _Telling(Protocol):
    def get_input_embeddings(self) -> nn.Module: ...


def with_token_vectors(
    student: nn.Module,
    teacher: nn.Module,
    counts: Shaped[Tensor, " vocabulary"],
    *,
    scale: float | int = 1.0,
    frozen: bool = False,
) -> Student:
    """A copy of the student whose token vectors are the teacher's, by their principal axes.

    The teacher's table of input vectors is centred and turned, and as many axes are kept as the
    student has numbers per token: those in which the tokens of the texts differ most, each token
    counted with the square root of how often it occurs, so that neither a few words nor thousands
    that are never met decide. All else in the student starts as it would.

    `provenance` maps the student's table to the teacher's.

    Args:
        student: a network with one `nn.Embedding` of the vocabulary; it is not changed.
        teacher: likewise; it may know more ids, and must have as many numbers per token or more.
        counts: how often each id occurs in the training texts.
        scale: the root mean square of a number in the vectors, over the tokens so counted.
        frozen: whether they stay as they are, so that tokens the student never meets in training
            keep their place among the others, and a step does not update the largest table.

    Raises:
        ValueError: `scale` is not above 0.
        ModelError: one of them has no such table or several, or the teacher's is narrower.

    Example:
        >>> from understudy.models import TextCNN, TextTransformer
        >>> large = TextTransformer(
        ...     vocabulary=50, pad=0, length=16, width=2, dim=16, depth=1, heads=2
        ... )
        >>> small = TextCNN(vocabulary=50, pad=0, width=2, dim=8, filters=4)
        >>> made = with_token_vectors(small, large, torch.ones(50))
        >>> made.provenance
        {'embedding': 'embedding'}
    """
    # Written so that NaN is refused as well.
    if not 0 < scale < float("inf"):
        raise ValueError(f"`scale > 0` must hold, but got {scale=}: usual is 1")
    size = len(counts)
    own_path, own = _table("student", student, size)
    path, goal = _table("teacher", teacher, size)
    if own.embedding_dim > goal.embedding_dim:
        raise ModelError(
            "a student that begins with its teacher's token vectors must have no more numbers per "
            f"token than it, but got {own.embedding_dim} and {goal.embedding_dim}: set "
            f"`dim: {goal.embedding_dim}` or less"
        )
    module = deepcopy(student)
    table = module.get_submodule(own_path)
    assert isinstance(table, nn.Embedding)
    found = _principal(goal.weight.detach()[:size], counts, width=own.embedding_dim, scale=scale)
    with torch.no_grad():
        table.weight[:size].copy_(found)
    table.weight.requires_grad_(not frozen)
    return Student(module=module, provenance={own_path: path})


def _table(side: str, network: nn.Module, size: int) -> tuple[str, nn.Embedding]:
    """The one table of token vectors: what the network says it is, or the only one so long."""
    every = [
        (path, part)
        for path, part in network.named_modules()
        if isinstance(part, nn.Embedding) and part.num_embeddings >= size
    ]
    # Hugging Face's networks also have tables of positions, and may have more ids than texts need.
    told = [part.get_input_embeddings() for part in network.modules() if _tells(part)]
    tables = [(path, part) for path, part in every if not told or part is told[0]]
    exact = [(path, part) for path, part in tables if part.num_embeddings == size]
    tables = exact or tables
    if len(tables) != 1:
        seen = ", ".join(f"`{path}`" for path, _ in tables) or "none"
        raise ModelError(
            f"the {side} must have one table (nn.Embedding) of {size} token vectors, but it has "
            f"{seen}: only networks of texts with the same tokens have them in common"
        )
    return tables[0]


def _tells(part: nn.Module) -> TypeGuard[_Telling]:
    return callable(getattr(part, "get_input_embeddings", None))


def _principal(
    vectors: Float[Tensor, " vocabulary dim"],
    counts: Shaped[Tensor, " vocabulary"],
    *,
    width: int,
    scale: float | int,
) -> Float[Tensor, " vocabulary width"]:
    # A token that was never met counts a little: in a small set of texts most are such.
    weights = (counts.double() + 0.5).sqrt()
    weights = (weights / weights.sum()).unsqueeze(1)
    wide = vectors.double()
    wide = wide - (weights * wide).sum(dim=0)
    _, axes = torch.linalg.eigh(wide.T @ (weights * wide))
    axes = axes[:, -width:].flip(1)
    # A direction and its opposite are the same axis; the sign is settled for all machines.
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    kept = wide @ (axes * largest.sign())
    size = (weights * kept.square()).sum(dim=0).mean().sqrt()
    # Tokens that are all alike have no axes, only rounding: they become zeros.
    alike = size <= 1e-6 * vectors.double().square().mean().sqrt()
    found: Tensor = kept * (0.0 if alike else scale / size)
    return found.float()
