"""Soft orthogonality: the rows of every weight matrix at right angles and of length one."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import check_one_of

Form = Literal["soft", "double", "coherence", "spectral"]
FORMS = ("soft", "double", "coherence", "spectral")
# Tables are looked up, not multiplied with: their rows have no reason to be at right angles.
EMBEDDINGS = ("*embed*", "*wte*", "*wpe*")


def orthogonality(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], *, form: Form, skip: Sequence[str]
) -> Float[Tensor, ""]:
    """How far every weight matrix is from orthogonal, added up over the matrices.

    A matrix W is `[outputs, inputs]`; a kernel of a convolution is reshaped to `[outputs, inputs *
    places]`. G is the Gram matrix of the smaller side, `W Wᵀ` or `Wᵀ W`, so that it can reach I:

    - `soft`: `|G - I|²`, Frobenius. That of the larger side is the same plus a constant.
    - `double`: both sides, `|W Wᵀ - I|² + |Wᵀ W - I|²`.
    - `coherence`: the largest entry of `|G - I|`.
    - `spectral`: the largest singular value of `G - I`, by two steps of power iteration (SRIP).

    Vectors (biases, batch norms, a single class token) have no angles and do not count.

    Args:
        weights: those that train, by name.
        start: not read.
        form: which.
        skip: patterns of names that do not count; those without a match are passed over.

    Returns:
        One value, 0 where every matrix is orthogonal (`double`: every square one).

    Raises:
        ValueError: there is no such form.

    Paper:
        Bansal, Chen and Wang 2018, "Can We Gain More from Orthogonality Regularizations in
        Training Deep CNNs?", section 3 (SO, DSO, MC, SRIP). Usual weight 0.0001.

    Example:
        >>> weights = {"w": torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])}
        >>> orthogonality(weights, {}, form="soft", skip=())
        tensor(9.)
    """
    del start
    check_one_of("form", form, FORMS)
    matrices = [
        matrix
        for name, weight in weights.items()
        if not any(fnmatchcase(name, pattern) for pattern in skip)
        and (matrix := _matrix(weight)) is not None
    ]
    found = [_apart(matrix, form) for matrix in matrices]
    return torch.stack(found).sum() if found else torch.zeros(())


class Orthogonality(nn.Module):
    """`orthogonality` with fixed constants."""

    def __init__(self, *, form: Form = "soft", skip: Sequence[str] = EMBEDDINGS) -> None:
        super().__init__()
        check_one_of("form", form, FORMS)
        self.form: Form = form
        self.skip = tuple(skip)

    def forward(
        self, weights: Mapping[str, Tensor], start: Mapping[str, Tensor]
    ) -> Float[Tensor, ""]:
        """One value."""
        return orthogonality(weights, start, form=self.form, skip=self.skip)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"form={self.form}, skip={self.skip}"


def _matrix(weight: Tensor) -> Tensor | None:
    """Outputs by inputs; None for what has one of either."""
    if weight.ndim < 2:
        return None
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32)).flatten(1)
    return wide if min(wide.shape) > 1 else None


def _apart(matrix: Tensor, form: str) -> Tensor:
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    rest = _rest(wide)
    if form == "double":
        return rest.square().sum() + _rest(wide.T).square().sum()
    if form == "coherence":
        return rest.abs().max()
    return _spectral(rest) if form == "spectral" else rest.square().sum()


def _rest(matrix: Tensor) -> Tensor:
    return matrix @ matrix.T - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def _spectral(rest: Tensor) -> Tensor:
    # The authors draw the first vector; the longest column is as good, and always the same.
    column = rest.detach().square().sum(dim=0).argmax()
    once = rest @ rest[:, column].detach()
    length = once.norm()
    if length == 0:
        return rest.sum() * 0
    found: Tensor = (rest @ once).norm() / length
    return found
