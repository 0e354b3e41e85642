"""The adapter `factors`: both networks' maps in words that a small autoencoder found."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import (
    Adapted,
    Shape,
    check_kinds,
    check_normalised,
    check_pairs,
)
from understudy.features.resizing import both_at, smaller


class Factors(nn.Module):
    """The teacher's map paraphrased, the student's translated: factors of one shape.

    The paraphraser is an autoencoder on the teacher's map; what its encoder gives are the factors.
    It learns by `reconstruction` alone, in a phase of its own before the student's; then `freeze`
    is called. The translator has the encoder's form with batch normalisation, and learns with the
    student. Factors of different sizes are averaged down to the smaller.

    The state dict remembers whether the paraphraser is frozen.

    Args:
        student: shapes of the student's maps, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        rate: the factors' channels, as a share of the teacher's.

    Raises:
        ModelError: a layer gives no maps, or the rate leaves no channel.

    Paper:
        Kim, Park and Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", section 3. The paraphraser without batch normalisation is that of the usual
        code.
    """

    def __init__(
        self, student: list[Shape], teacher: list[Shape], *, rate: float | int = 0.5
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        self.sizes: list[tuple[int, int]] = []
        self.paraphrasers = nn.ModuleList()
        self.translators = nn.ModuleList()
        for own, goal in zip(student, teacher, strict=True):
            check_kinds("factors", own, goal, takes=("map",), remedy="name convolutional layers")
            self.sizes.append(smaller(own, goal))
            channels = _channels(goal[0], rate)
            self.paraphrasers.append(Paraphraser(goal[0], channels))
            self.translators.append(_encoder(own[0], channels, normalise=True))
        self.pretrained: Tensor
        self.register_buffer("pretrained", torch.tensor(False))
        self.register_load_state_dict_post_hook(_freeze_again)  # type: ignore[no-untyped-call]

    @property
    def follows(self) -> str:
        """The kind of adapter that has learned the paraphraser in a phase before."""
        return "paraphrase"

    def follow(self, state: Mapping[str, Tensor]) -> None:
        """Take over the paraphraser of such a phase, and end its learning.

        Raises:
            ModelError: it was learned on other layers, or at another rate.
        """
        learned = {k: v for k, v in state.items() if k.startswith("paraphrasers.")}
        own = {f"paraphrasers.{k}": v.shape for k, v in self.paraphrasers.state_dict().items()}
        if own != {k: v.shape for k, v in learned.items()}:
            raise ModelError(
                "the paraphraser of the phase before was learned on layers of another shape, or at "
                "another rate: give `paraphraser` and `factor_transfer` the same layers and rate"
            )
        self.load_state_dict(learned, strict=False)
        self.freeze()

    def freeze(self) -> None:
        """End the paraphraser's own phase: it learns no more."""
        self.pretrained.fill_(True)
        self.paraphrasers.requires_grad_(False)

    def reconstruction(self, teacher: list[Tensor]) -> Float[Tensor, " batch"]:
        """How far the paraphraser is from giving the teacher's maps back, one value per row.

        Squared differences, mean over the numbers of a map and summed over layers.
        """
        values = [
            (paraphraser(goal.detach()) - goal.detach()).square().flatten(1).mean(dim=1)
            for paraphraser, goal in zip(self.paraphrasers, teacher, strict=True)
        ]
        return torch.stack(values).sum(dim=0)

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The translator's factors and the paraphraser's; the latter give no gradient.

        Raises:
            TrainingError: while training, the batch has fewer than two rows.
        """
        del batch
        check_normalised(self, student)
        owns, goals = [], []
        for number, size in enumerate(self.sizes):
            with torch.no_grad():
                goal = cast(Paraphraser, self.paraphrasers[number]).encoder(teacher[number])
            own, goal = both_at(size, self.translators[number](student[number]), goal)
            owns.append(own)
            goals.append(goal)
        return Adapted(student=owns, teacher=goals)


class Paraphraser(nn.Module):
    """Maps to factors and back."""

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _encoder(channels, factors, normalise=False)
        layers: list[nn.Module] = []
        for before, after in ((factors, factors), (factors, channels), (channels, channels)):
            layers += [
                nn.ConvTranspose2d(before, after, kernel_size=3, padding=1),
                nn.LeakyReLU(0.1),
            ]
        self.decoder = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """The maps, from their factors alone."""
        again: Tensor = self.decoder(self.encoder(maps))
        return again


def _encoder(channels: int, factors: int, *, normalise: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((channels, channels), (channels, factors), (factors, factors)):
        layers.append(nn.Conv2d(before, after, kernel_size=3, padding=1))
        if normalise:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


def _channels(teacher: int, rate: float | int) -> int:
    channels = int(teacher * rate) if 0 < rate < float("inf") else 0
    if channels < 1:
        raise ModelError(
            f"`rate * channels >= 1` must hold, but got {rate=} and {teacher} channels: usual is "
            "0.5"
        )
    return channels


def _freeze_again(module: nn.Module, keys: Any) -> None:
    del keys
    assert isinstance(module, Factors)
    if bool(module.pretrained):
        module.freeze()
