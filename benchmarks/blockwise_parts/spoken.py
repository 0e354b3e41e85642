"""Spoken digits as log-mel frames, and a recurrent network that reads them."""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

RATE, WINDOW, HOP, BANDS, FRAMES = 8000, 256, 160, 40, 32
# Recordings 0 to 4 of each speaker and digit are the data set's own test rows.
TEST, VALIDATION = 5, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Rows of one split: `[rows, FRAMES, BANDS]` and their digits."""

    rows: Tensor
    digits: Tensor


def found() -> Path | None:
    """The file of recordings, where there is one."""
    name = os.environ.get("UNDERSTUDY_DATA", "")
    path = Path(name) / "fsdd" / "fsdd.npz"
    return path if name and path.is_file() else None


def splits(path: Path, *, most: int | None = None) -> dict[str, Part]:
    """`train`, `validation` and `test`; at most so many rows to train on."""
    with np.load(path, allow_pickle=False) as file:
        audio, offsets = file["audio"], file["offsets"]
        digit, index = file["digit"].astype(np.int64), file["index"]
    filters = bands()
    rows = np.stack([
        frames(audio[start:stop], filters)
        for start, stop in pairwise(offsets)
    ])  # fmt: skip
    chosen = {
        "train": np.flatnonzero(index >= VALIDATION),
        "validation": np.flatnonzero((index >= TEST) & (index < VALIDATION)),
        "test": np.flatnonzero(index < TEST),
    }
    chosen["train"] = np.random.default_rng(0).permutation(chosen["train"])[:most]
    seen = rows[chosen["train"]]
    rows = (rows - seen.mean(axis=(0, 1))) / seen.std(axis=(0, 1))
    return {
        name: Part(
            rows=torch.from_numpy(rows[own].astype(np.float32)),
            digits=torch.from_numpy(digit[own]),
        )
        for name, own in chosen.items()
    }


def frames(audio: NDArray[np.int16], filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[FRAMES, BANDS]`, log energies; a short recording ends in silence, a long one is cut."""
    needed = WINDOW + HOP * (FRAMES - 1)
    wave = np.zeros(needed)
    wave[: min(len(audio), needed)] = audio[:needed] / 32768
    cut = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(cut * np.hanning(WINDOW), axis=1)) ** 2
    return np.log(power @ filters + 1e-6)


def bands() -> NDArray[np.float64]:
    """`[WINDOW // 2 + 1, BANDS]`, triangles that are equally wide on the mel scale."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    at = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


class Listener(nn.Module):
    """Stacked LSTM layers over `[rows, FRAMES, BANDS]`, the mean over time, and ten logits."""

    def __init__(self, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """One row of logits per recording."""
        stream, _ = self.lstm(rows)
        answers: Tensor = self.head(stream.mean(dim=1))
        return answers
