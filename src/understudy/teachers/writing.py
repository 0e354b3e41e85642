"""Texts that a language model writes for its student to learn from: sequence-level distillation.

A file of JSON lines, each with `id`, `prompt`, `completion`, `ended` and `seed`. It is written in
portions of a fixed size, each a function of the seed and its number alone: so a file that was left
half written goes on as if nothing had happened, and a longer one begins with the shorter one.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from understudy.contracts import Progress, Silent
from understudy.data.language_tokens import Coder
from understudy.deployed.sampling import Sampling
from understudy.errors import DataError
from understudy.folders import fingerprint, read_json, write_json
from understudy.models.causal import CausalModel
from understudy.models.generating import generate
from understudy.models.weights import weights_fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class Commission:
    """What a teacher is to write.

    Attributes:
        count: how many texts.
        most: the most new tokens of a text.
        prompts: what the texts go on from, round and round; none: from nothing.
        sampling: how tokens are drawn; None takes the likeliest, and a prompt gives one text only.
        seed: of the draws.
        portion: how many texts are written together.

    Raises:
        ValueError: a number is below 1, or the likeliest text is asked for more than once.
    """

    count: int
    most: int = 256
    prompts: tuple[str, ...] = ()
    sampling: Sampling | None = field(default_factory=Sampling)
    seed: int = 0
    portion: int = 32

    def __post_init__(self) -> None:
        for name in ("count", "most", "portion"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name} >= 1` must hold, but got {getattr(self, name)}")
        different = len(set(self.prompts)) or 1
        if self.sampling is None and self.count > different:
            raise ValueError(
                f"the likeliest text is the same every time, but {self.count} texts are asked for "
                f"from {different} different prompts: give a temperature, or count: {different}"
            )

    def mark(self) -> dict[str, Any]:
        """What every text is a function of; their number is not."""
        data = asdict(self) | {"prompts": fingerprint(list(self.prompts))}
        data.pop("count")
        return data


def write_texts(
    teacher: torch.nn.Module,
    coder: Coder,
    commission: Commission,
    path: Path,
    *,
    progress: Progress | None = None,
) -> Path:
    """Let a teacher write, or go on writing, a file of texts.

    Args:
        teacher: a causal model; it is asked in evaluation mode and left as it was.
        coder: its tokenizer.
        commission: what to write.
        path: the file of JSON lines; beside it, `NAME.about.json` says what it was written with.
        progress: shows how far it is.

    Returns:
        The path.

    Raises:
        DataError: the file was written otherwise, the teacher can begin no text by itself, or a
            prompt does not fit it.

    Paper:
        Kim and Rush 2016, "Sequence-Level Knowledge Distillation", section 3.2; drawn texts
        instead of the likeliest are those of Agarwal et al. 2024 (supervised KD), section 3.

    Example:
        >>> from understudy.teachers.hf_causal import load_hf_causal  # doctest: +SKIP
        >>> model, coder = load_hf_causal(folder), read_coder(folder)  # doctest: +SKIP
        >>> write_texts(model, coder, Commission(count=1000), Path("texts.jsonl"))  # doctest: +SKIP
    """
    if not isinstance(teacher, CausalModel):
        raise DataError(
            f"texts are written by a causal language model, but {type(teacher).__name__} is none: "
            "use `kind: gpt` or `kind: hf_causal`"
        )
    prompts = _begun(teacher, coder, commission.prompts)
    about = path.with_name(f"{path.name}.about.json")
    _agree(about, path, _mark(teacher, coder, commission))
    done = _whole(path, commission)
    shown = progress or Silent()
    with (
        shown.track(f"texts in {path.name}", commission.count, "texts") as tracker,
        path.open("ab") as file,
    ):
        tracker(done)
        while done < commission.count:
            texts = _portion(teacher, coder, commission, prompts, done // commission.portion)
            for text in list(texts)[: commission.count - done]:
                file.write((json.dumps(text, ensure_ascii=False) + "\n").encode())
                done += 1
            # A portion is there, or it is not: after a power cut too.
            file.flush()
            os.fsync(file.fileno())
            tracker(done)
    return path


def _portion(
    teacher: CausalModel,
    coder: Coder,
    commission: Commission,
    prompts: Sequence[Sequence[int]],
    number: int,
) -> Iterator[dict[str, Any]]:
    """All texts of a portion, also those that nobody asked for: drawn ones depend on the others."""
    first = number * commission.portion
    ids = range(first, first + commission.portion)
    device = next(teacher.parameters()).device
    mixed = np.random.SeedSequence([commission.seed, number]).generate_state(1, np.uint64)[0]
    told = generate(
        teacher,
        [prompts[one % len(prompts)] for one in ids],
        most=commission.most,
        sampling=commission.sampling,
        generator=torch.Generator(device).manual_seed(int(mixed >> np.uint64(1))),
    )
    for one, tokens in zip(ids, (row.tolist() for row in told), strict=True):
        prompt = list(prompts[one % len(prompts)])
        asked = commission.prompts[one % len(prompts)] if commission.prompts else ""
        yield {
            "id": one,
            "prompt": asked,
            "completion": _completion(coder, prompt, tokens),
            "ended": tokens[-1] in teacher.stop,
            "seed": commission.seed,
        }


def _completion(coder: Coder, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """What was written, with the space that stands between it and its prompt."""
    before, whole = coder.decode(prompt), coder.decode([*prompt, *tokens])
    return whole[len(before) :] if whole.startswith(before) else coder.decode(tokens)


def _begun(teacher: CausalModel, coder: Coder, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens that texts go on from.

    Raises:
        DataError: there are none.
    """
    found = [coder.prompt(prompt) for prompt in prompts or ("",)]
    if prompts and not all(prompt.strip() for prompt in prompts):
        raise DataError("a prompt must hold text, but one is empty: remove it")
    if not prompts and not found[0]:
        if teacher.begin is None:
            raise DataError(
                "a text from nothing begins with the token that begins a text, but this teacher "
                "has none: give `prompts`"
            )
        found = [[teacher.begin]]
    return found


def _mark(teacher: CausalModel, coder: Coder, commission: Commission) -> dict[str, Any]:
    assert isinstance(teacher, torch.nn.Module)  # the protocol says so, in words alone
    return commission.mark() | {
        "teacher": weights_fingerprint(teacher),
        # A model's settings, which its weights do not show, say how far and how it goes on.
        "context": teacher.context,
        "begin": teacher.begin,
        "end": teacher.end,
        "stop": list(teacher.stop),
        "tokenizer": fingerprint(coder.describe()),
    }


def _agree(about: Path, path: Path, mark: dict[str, Any]) -> None:
    if not path.exists() or not about.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        write_json(about, mark)
        return
    before = read_json(about)
    # `begin` may be None, which is not the same as that nothing is known of it.
    other = sorted(name for name in mark if name not in before or before[name] != mark[name])
    unknown = [name for name in other if name not in before]
    if unknown:
        raise DataError(
            f"{path} must have been written as it is asked for now, but {about.name} does not say "
            f"with which {', '.join(unknown)}: remove both, or name another file"
        )
    if other:
        raise DataError(
            f"{path} must have been written as it is asked for now, but its {', '.join(other)} "
            f"{'was' if len(other) == 1 else 'were'} another: remove it, or name another file"
        )


def _whole(path: Path, commission: Commission) -> int:
    """How many texts are there; what is left of a portion is cut off."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        ends = [0]
        for line in file:
            if not line.endswith(b"\n"):
                break
            ends.append(ends[-1] + len(line))
        there = len(ends) - 1
        if there < commission.count:
            there -= there % commission.portion
            file.truncate(ends[there])
    return min(there, commission.count)
