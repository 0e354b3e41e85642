"""The two factors of one layer that answer most like it."""

import math
from typing import Any

import torch
from torch import Tensor, nn

Layer = nn.Module
# Above this size eigenvalues are found in float32: twice as fast, and a share of energy needs no
# more than five digits. Factors themselves are always made in float64.
_EXACT = 512


def sides(layer: Layer | None) -> tuple[int, int]:
    """How many numbers a layer's answer and one position of its input have; zeros: not ours."""
    if isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward:
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward:
        # Not from the weight: reading one that is computed may change what it is computed from.
        inputs = layer.in_channels * math.prod(layer.kernel_size)
        return (0, 0) if layer.groups > 1 else (layer.out_channels, inputs)
    if _is_conv1d(layer):
        assert layer is not None
        inputs, outputs = weight_of(layer).shape
        return outputs, inputs
    return 0, 0


def numbers(layer: Layer) -> int:
    """How many weights a layer has, its bias aside."""
    outputs, inputs = sides(layer)
    return outputs * inputs


def saving_rank(layer: Layer) -> int:
    """The largest rank at which two factors have fewer weights than the layer."""
    return (numbers(layer) - 1) // sum(sides(layer))


def spectrum(layer: Layer, moment: Tensor | None) -> Tensor:
    """Squared singular values, largest first, float64 `[min(outputs, inputs)]`.

    Args:
        layer: one that `sides` knows.
        moment: what `looked` gathered of it; None for those of the weights alone.
    """
    exact = torch.float64 if min(sides(layer)) <= _EXACT else torch.float32
    matrix = _matrix(layer).to(exact)
    if moment is None:
        gram = _squared(matrix, inner=reads_inputs(layer))
    elif reads_inputs(layer):
        root = _root(moment.to(matrix.device)).to(exact)
        gram = root.T @ _squared(matrix, inner=True) @ root
    else:
        gram = moment.to(matrix.device, exact)
    found: Tensor = torch.linalg.eigvalsh(gram).double().flip(0).clamp(min=0)
    return found[: min(sides(layer))].cpu()


def energies(squares: Tensor) -> Tensor:
    """The share of their sum that the first, the first two, ... have."""
    total = squares.sum()
    if not total > 0:
        return torch.ones_like(squares)
    return (squares.cumsum(0) / total).clamp(max=1)


def rank_at(shares: Tensor, energy: float, least: int) -> int:
    """The smallest rank that keeps this share of the energy."""
    found = int(torch.searchsorted(shares, energy - 1e-12)) + 1
    return min(max(found, least), len(shares))


def factorised(
    layer: Layer, rank: int, moment: Tensor | None = None, *, into: nn.Module | None = None
) -> nn.Module:
    """Two layers in the place of one; `into`: fill these with the best factors.

    The answer W x of rank r that is nearest to the layer's own, in the sum of squares over the
    inputs that `moment` was gathered from, is its projection onto the first r principal directions
    U of the answers: U (U' W) x.
    """
    if into is None:
        made = nn.Sequential(*_pair(layer, rank))
        weight = weight_of(layer)
        for parameter in made.parameters():
            parameter.requires_grad_(weight.requires_grad)
        return made.to(device=weight.device, dtype=weight.dtype).train(layer.training)
    matrix = _matrix(layer)
    directions = _directions(layer, rank, moment)
    inner = directions.T @ matrix
    # Equal sizes: neither factor learns faster than the other, or loses more digits in int8.
    scale = inner.norm(dim=1).sqrt()
    scale = torch.where(scale > 0, scale, 1)
    first, second = into.get_submodule("0"), into.get_submodule("1")
    kernel, mixing = weight_of(first), weight_of(second)
    with torch.no_grad():
        kernel.copy_((inner / scale[:, None]).reshape(kernel.shape))
        mixing.copy_((directions * scale).reshape(mixing.shape))
        if isinstance(layer.bias, Tensor) and isinstance(second.bias, Tensor):
            second.bias.copy_(layer.bias)
    return into


def weight_of(layer: Layer) -> Tensor:
    """A layer's weight, as it is."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def read(layer: Layer, inputs: Tensor, made: Tensor) -> Tensor:
    """The vectors whose second moment counts, `[positions, size]`."""
    if reads_inputs(layer):
        return inputs.reshape(-1, inputs.shape[-1])
    if isinstance(layer, nn.Conv2d):
        made = made.movedim(-3, -1)
    made = made.reshape(-1, made.shape[-1])
    return made - layer.bias if isinstance(layer.bias, Tensor) else made


def reads_inputs(layer: Layer) -> bool:
    """Whether `read` gives a layer's inputs, not its answers."""
    outputs, inputs = sides(layer)
    # Patches of a convolution overlap, so that its answers are always the cheaper ones.
    return inputs < outputs and not isinstance(layer, nn.Conv2d)


def _squared(matrix: Tensor, *, inner: bool) -> Tensor:
    return matrix.T @ matrix if inner else matrix @ matrix.T


def _root(moment: Tensor) -> Tensor:
    """R of R R' = moment, with as much on its diagonal as rounding takes away."""
    size = moment.trace() / len(moment)
    if not size > 0:
        return torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    unit = torch.eye(len(moment), dtype=moment.dtype, device=moment.device) * size
    share = 1e-10
    while True:
        tried = torch.linalg.cholesky_ex(moment + share * unit)
        if not tried.info:
            root: Tensor = tried.L
            return root
        share *= 10


def _directions(layer: Layer, rank: int, moment: Tensor | None) -> Tensor:
    """Orthonormal principal directions of the answers, `[outputs, rank]`."""
    if rank == min(sides(layer)):
        # All that the layer can answer, also what no row has shown.
        return _orthonormal(_matrix(layer))
    matrix = _matrix(layer)
    if reads_inputs(layer):
        # W R, where R R' is the second moment of the inputs, has the answers' singular values.
        behind = matrix if moment is None else matrix @ _root(moment.to(matrix.device))
        return _orthonormal(behind @ _first(_squared(behind, inner=True), rank))
    plain = _squared(matrix, inner=False)
    if moment is None:
        return _first(plain, rank)
    # Directions that no row has shown come last, in the order of the weights.
    tiny = 1e-9 * moment.trace() / plain.trace().clamp(min=1e-300)
    return _first(moment.to(plain.device) + tiny * plain, rank)


def _first(gram: Tensor, rank: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(gram)[1]
    return vectors.flip(1)[:, :rank]


def _orthonormal(columns: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(columns)[0]
    return basis


def _pair(layer: Layer, rank: int) -> tuple[nn.Module, nn.Module]:
    outputs, inputs = sides(layer)
    weight = weight_of(layer)
    biased = layer.bias is not None
    options: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    with torch.random.fork_rng(devices=[]):
        if not isinstance(layer, nn.Conv2d):
            pair: tuple[nn.Module, nn.Module] = (
                nn.Linear(inputs, rank, bias=False, **options),
                nn.Linear(rank, outputs, bias=biased, **options),
            )
        else:
            pair = (
                nn.Conv2d(
                    layer.in_channels,
                    rank,
                    layer.kernel_size,  # type: ignore[arg-type]
                    stride=layer.stride,  # type: ignore[arg-type]
                    padding=layer.padding,  # type: ignore[arg-type]
                    dilation=layer.dilation,  # type: ignore[arg-type]
                    padding_mode=layer.padding_mode,
                    bias=False,
                    **options,
                ),
                nn.Conv2d(rank, outputs, 1, bias=biased, **options),
            )
    for one in pair:
        for parameter in one.parameters():
            nn.init.zeros_(parameter)
    return pair


def _matrix(layer: Layer) -> Tensor:
    """The weight as float64 `[outputs, inputs]`."""
    weight = weight_of(layer).detach().double()
    return weight.T if _is_conv1d(layer) else weight.flatten(1)


def _is_conv1d(layer: Layer | None) -> bool:
    # Hugging Face's linear layer of GPT-2, whose weight lies the other way round.
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")
