"""What replacing a block does to the whole network, and what two replacements do together."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Literal

from torch import Tensor, nn

from understudy.blockwise.program import Number, Spot
from understudy.blockwise.recombine import Correction, Option
from understudy.blockwise.rulers import Metric, Output, Ruler, Tally
from understudy.blockwise.trials import MEMORY, Trials
from understudy.blockwise.words import Candidate, Damage, Partition
from understudy.errors import ModelError, did_you_mean

# Candidates by block and label.
Modules = Mapping[str, Mapping[str, nn.Module]]


def damages(
    network: nn.Module,
    partition: Partition,
    modules: Modules,
    rows: Tensor,
    labels: Tensor | None = None,
    *,
    output: Output,
    metric: Metric | None = None,
    memory: int = MEMORY,
    batch_size: int = 64,
) -> tuple[Damage, ...]:
    """The damage of each candidate: the network with this one block replaced, against itself.

    `kl` is KL(network || with the candidate) in nats, the mean over rows and positions, for
    logits; for values and embeddings the squared error over the answers' variance (0: equal;
    1: no better than their mean). `metric_drop` is how much worse the task's metric is: accuracy
    (a share) with class labels, R2 with numbers; without labels, of logits the share of rows with
    another top class than the network's, and otherwise `kl` again. A candidate whose answers are
    not finite gets infinity for both.

    The part before a block runs once per portion of the rows, not once per candidate (`Trials`).

    Args:
        network: the original; it is not changed.
        partition: of this network.
        modules: candidates by block and label.
        rows: `[rows, ...]` for validation, two or more, as the network takes them.
        labels: `[rows]` classes (-1: unlabelled), or numbers `[rows]` or `[rows, targets]` (NaN:
            unlabelled).
        output: what the network's first tensor is; logits have their classes last.
        metric: in place of the metric of the labels; it is given all answers at once, so that
            those of all candidates are held in memory.
        memory: how many bytes the kept streams may take.
        batch_size: the most rows at once.

    Returns:
        One for each candidate, the blocks in the order of the partition.

    Raises:
        ModelError: a block is unknown, a candidate does not fit, or the network's own answers are
            not finite.
        DataError: the labels do not fit the rows or the answers.
    """
    ruler = Ruler(labels, rows=len(rows), output=output, metric=metric)
    pairs = [{block: label} for block in _known(partition, modules) for label in modules[block]]
    trials = Trials(network, partition, rows, memory=memory, batch_size=batch_size)
    original, tallies = _tried(trials, ruler, modules, pairs)
    return tuple(
        Damage(
            block=block,
            candidate=label,
            kl=ruler.damage(tally),
            metric_drop=ruler.drop(tally, original),
        )
        for pair, tally in zip(pairs, tallies, strict=True)
        for block, label in pair.items()
    )


def pair_corrections(
    network: nn.Module,
    partition: Partition,
    modules: Modules,
    rows: Tensor,
    singles: Sequence[Damage],
    *,
    output: Output,
    pairs: Sequence[tuple[str, str]] | None = None,
    memory: int = MEMORY,
    batch_size: int = 64,
) -> tuple[Correction, ...]:
    """What two candidates do together beyond the sum: `kl(a, b) - kl(a) - kl(b)`.

    One partial pass for every two candidates of two blocks, so give few: those of small damage.

    Args:
        network: as for `damages`, like all that is not described here.
        partition: of this network.
        modules: the candidates to try together; others have no correction.
        rows: those on which the single damages were found.
        singles: what `damages` found of these candidates; of those that are not finite no pair is
            tried, since they cannot be chosen.
        output: what the network's first tensor is.
        pairs: names of two blocks each; by default all neighbours.
        memory: how many bytes the kept streams may take.
        batch_size: the most rows at once.

    Returns:
        One for each two candidates; infinite where both together give what is not finite.

    Raises:
        ModelError: as of `damages`, or a candidate's own damage is not among `singles`.
    """
    _known(partition, modules)
    alone = {(single.block, single.candidate): float(single.kl) for single in singles}
    near = [(one.name, other.name) for one, other in pairwise(partition.blocks)]
    tried = [
        {one: left, other: right}
        for one, other in (near if pairs is None else pairs)
        for left in modules.get(one, ())
        for right in modules.get(other, ())
        if isfinite(_alone(alone, one, left)) and isfinite(_alone(alone, other, right))
    ]
    ruler = Ruler(None, rows=len(rows), output=output)
    trials = Trials(network, partition, rows, memory=memory, batch_size=batch_size)
    _, tallies = _tried(trials, ruler, modules, tried)
    found = []
    for pair, tally in zip(tried, tallies, strict=True):
        one, other = pair.items()
        value = ruler.damage(tally) - alone[one] - alone[other]
        found.append(Correction(one=one, other=other, value=value))
    return tuple(found)


def options_of(
    candidates: Mapping[str, Sequence[Candidate]],
    damages: Sequence[Damage],
    *,
    by: Literal["kl", "metric_drop"] = "kl",
    memory: Mapping[Spot, Number] | None = None,
    requires: Mapping[Spot, Sequence[Spot]] | None = None,
) -> dict[str, list[Option]]:
    """Candidates with their damage, for `recombine.Menu`.

    Those without a damage are left out: they were not taught, or failed.

    Args:
        candidates: of each block, the blocks in running order.
        damages: what `damages` found.
        by: which damage counts.
        memory: by (block, label), the bytes that a candidate works in, where that is known.
        requires: by (block, label), the options without which it may not be chosen.
    """
    known = {
        (one.block, one.candidate): one.kl if by == "kl" else one.metric_drop for one in damages
    }
    return {
        block: [
            Option(
                label=one.label,
                damage=known[block, one.label],
                costs=_costs(one, (memory or {}).get((block, one.label))),
                requires=tuple((requires or {}).get((block, one.label), ())),
            )
            for one in several
            if (block, one.label) in known
        ]
        for block, several in candidates.items()
    }


def _costs(candidate: Candidate, memory: Number | None) -> dict[str, Number]:
    costs = {
        "parameters": candidate.parameters,
        "bytes": candidate.bytes,
        "flops": candidate.flops,
        "ms": candidate.ms,
        "memory": memory,
    }
    return {name: cost for name, cost in costs.items() if cost is not None}


def _tried(
    trials: Trials, ruler: Ruler, modules: Modules, pairs: Sequence[Mapping[str, str]]
) -> tuple[Tally, list[Tally]]:
    original, tallies = Tally(), [Tally() for _ in pairs]
    for here, truth in trials.portions():
        ruler.add_original(original, truth, here)
        for pair, tally in zip(pairs, tallies, strict=True):
            candidates = {block: modules[block][label] for block, label in pair.items()}
            try:
                ruler.add(tally, trials.answer(candidates), truth, here)
            except ModelError as error:
                names = ", ".join(f"`{label}` of block `{block}`" for block, label in pair.items())
                raise ModelError(f"{names}: {error}") from error
    return original, tallies


def _known(partition: Partition, modules: Modules) -> list[str]:
    """The blocks that have candidates, in running order."""
    names = [block.name for block in partition.blocks]
    for name in modules:
        if name not in names:
            raise ModelError(f"there is no block `{name}`: {did_you_mean(name, names)}")
    return [name for name in names if name in modules]


def _alone(alone: Mapping[tuple[str, str], float], block: str, label: str) -> float:
    if (block, label) not in alone:
        raise ModelError(
            f"`{label}` of block `{block}` has no damage of its own yet: run `damages` before"
        )
    return alone[block, label]
