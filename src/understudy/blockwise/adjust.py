"""What the next round does where the stitched student misses its target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from understudy.blockwise.words import Damage, Number
from understudy.errors import ModelError

Spot = tuple[str, str]

# A held-out loss that came down by less than this share of itself no longer falls.
FALLS = 0.02
# The blocks that make up so much of the damage are worked on.
SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one round does, as plain data.

    Attributes:
        more_training: blocks and candidates whose local training goes on.
        split: blocks that the next partition cuts finer.
        add_candidates: by block, labels of candidates to make and teach.
        stop: why there is no other round; None: there is.
        because: one sentence for each decision.
    """

    more_training: tuple[Spot, ...] = ()
    split: tuple[str, ...] = ()
    add_candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stop: str | None = None
    because: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "more_training": [list(spot) for spot in self.more_training],
            "split": list(self.split),
            "add_candidates": {block: list(v) for block, v in self.add_candidates.items()},
            "stop": self.stop,
            "because": list(self.because),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Plan":
        """What `to_data` wrote."""
        return cls(
            more_training=tuple((str(block), str(label)) for block, label in data["more_training"]),
            split=tuple(data["split"]),
            add_candidates={b: tuple(labels) for b, labels in data["add_candidates"].items()},
            stop=data["stop"],
            because=tuple(data["because"]),
        )

    def lines(self) -> list[str]:
        """For people: every decision, or why there is none."""
        return [*self.because, *([f"stop: {self.stop}"] if self.stop else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What can still be done with the blocks.

    Attributes:
        losses: by (block, candidate), the held-out local losses after each training so far.
        divisible: blocks that can be cut finer.
        untried: by block, labels of candidates that were not taught yet, the best first.
    """

    losses: Mapping[Spot, Sequence[Number]] = field(default_factory=dict)
    divisible: frozenset[str] = frozenset()
    untried: Mapping[str, Sequence[str]] = field(default_factory=dict)


def next_round(
    chosen: Mapping[str, str],
    damages: Sequence[Damage],
    outlook: Outlook,
    *,
    measured: Number,
    target: Number,
    rounds_left: int,
    higher_is_better: bool = True,
    falls: Number = FALLS,
    share: Number = SHARE,
) -> Plan:
    """The next round's work, decided from what the last one measured.

    The chosen candidates are looked at from the one that does most damage on, until those that
    something can be done about make up `share` of it all. Where the local loss of a candidate
    still falls it is trained more; else its block is cut finer; else another candidate is added.

    Args:
        chosen: the candidate of each block in the student that was measured.
        damages: of all candidates, as scored before stitching.
        outlook: what can still be done.
        measured: the student's score.
        target: the score to reach.
        rounds_left: how many rounds may follow.
        higher_is_better: which way the score is up.
        falls: the smallest fall of a local loss, as a share of it, that is worth more training.
        share: in (0, 1], of the damage that the round works on.

    Raises:
        ValueError: the share is out of its range.
        ModelError: a chosen candidate has no damage.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`0 < share <= 1` must hold, but got {share=}")
    reached = measured >= target if higher_is_better else measured <= target
    if reached:
        return Plan(stop=f"the target is met: {measured:.4g} against {target:.4g}")
    if rounds_left < 1:
        return Plan(stop=f"the rounds are spent: {measured:.4g} against {target:.4g}")
    parts = shares(chosen, damages)
    steps: list[_Step] = []
    covered = 0.0
    for block, part in parts.items():
        if covered >= share:
            break
        step = _step(block, chosen[block], part, outlook, float(falls))
        if step is not None:
            steps.append(step)
            covered += part
    if not steps:
        why = "no chosen candidate does damage" if not parts else "nothing is left to try"
        return Plan(stop=f"{why}: {measured:.4g} against {target:.4g}; allow a larger budget")
    return Plan(
        more_training=tuple((s.block, s.label) for s in steps if s.kind == "train"),
        split=tuple(s.block for s in steps if s.kind == "split"),
        add_candidates={s.block: (s.label,) for s in steps if s.kind == "add"},
        because=tuple(s.because for s in steps),
    )


def shares(chosen: Mapping[str, str], damages: Sequence[Damage]) -> dict[str, float]:
    """Each block's share of the chosen candidates' damage, the largest first; those of none aside.

    Raises:
        ModelError: a chosen candidate has no damage, or one that is not finite.
    """
    known = {(one.block, one.candidate): float(one.kl) for one in damages}
    own: dict[str, float] = {}
    for spot in chosen.items():
        if spot not in known or not isfinite(known[spot]):
            raise ModelError(
                f"`{spot[1]}` of block `{spot[0]}` was chosen but has no finite damage: score the "
                "candidates of this round before"
            )
        own[spot[0]] = max(known[spot], 0.0)
    total = sum(own.values())
    ordered = sorted(own, key=lambda block: -own[block])
    return {block: own[block] / total for block in ordered if own[block] > 0}


def still_falls(losses: Sequence[Number], *, falls: Number = FALLS) -> bool:
    """Whether the last training brought a held-out loss down by this share of the best before.

    A single loss says nothing of that yet, so that more training is worth trying.
    """
    if not losses or not isfinite(losses[-1]):
        return False
    before = [loss for loss in losses[:-1] if isfinite(loss)]
    return not before or losses[-1] < (1 - falls) * min(before)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    kind: str
    block: str
    label: str
    because: str


def _step(block: str, label: str, part: float, outlook: Outlook, falls: float) -> _Step | None:
    losses = list(outlook.losses.get((block, label), ()))
    opening = f"block `{block}` does {100 * part:.0f}% of the damage"
    if still_falls(losses, falls=falls):
        fell = " to ".join(f"{loss:.3g}" for loss in losses[-2:])
        why = f"{opening} and the local loss of `{label}` still falls ({fell}): trained more"
        return _Step(kind="train", block=block, label=label, because=why)
    if block in outlook.divisible:
        why = f"{opening} and the local loss of `{label}` has stopped falling: cut finer"
        return _Step(kind="split", block=block, label=label, because=why)
    untried = [name for name in outlook.untried.get(block, ()) if name != label]
    if untried:
        why = f"{opening}, cannot be trained further or cut: `{untried[0]}` is added"
        return _Step(kind="add", block=block, label=untried[0], because=why)
    return None
