"""A fine-tuned classifier of Hugging Face as it is: its own head, its answers in another order.

What an answer means stands in its `id2label`. The data has names of its own for the classes, so the
two are matched by name, never by luck.
"""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.data.tokenizers import read_tokenizer
from understudy.deployed.texts import Tokenizer
from understudy.errors import MissingExtraError, ModelError
from understudy.models.token_masks import real_tokens
from understudy.teachers.hf_encoder import check_belongs, there
from understudy.teachers.hf_model import architecture_of, config_of, fetched, load_hf_model

_ENDINGS: Final = {False: "ForSequenceClassification", True: "ForTokenClassification"}
_READ: Final = ("config.json", "tokenizer.json", "tokenizer_config.json")
_PLACEHOLDER: Final = re.compile(r"label_\d+")
_PROBED: Final = 6
TOLERANCE: Final = 0.01
"""How far padding may move an answer, as a share of its size."""


class HFClassifier(nn.Module):
    """Token ids `[batch, longest]` to the logits of a fine-tuned model, `[batch, classes]`.

    Args:
        folder: of the model, or its name on the Hugging Face hub.
        vocabulary: how many ids the tokenizer has.
        pad: the id that fills rows up.
        length: the most tokens of a row.
        classes: the data's names of the classes, in the order of the model's answers; without them
            what its `id2label` says.
        each_token: whether every token is answered for, `[batch, longest, classes]`.

    Attributes:
        network: the model itself.
        names: what its answers mean, in its own order.
        note: what a person should know of how they were matched, or empty.

    Raises:
        ModelError: there is no such model, it has no head of this kind, tokenizer and model do not
            belong together, or padding changes its answers.
        MissingExtraError: transformers is not installed.

    Example:
        >>> net = HFClassifier(
        ...     folder="distilbert-sst2/", vocabulary=30522, pad=0, length=128
        ... )  # doctest: +SKIP
        >>> net.match(["positive", "negative"])  # doctest: +SKIP
    """

    order: Tensor

    def __init__(
        self,
        *,
        folder: str,
        vocabulary: int,
        pad: int,
        length: int,
        classes: Sequence[str] | None = None,
        each_token: bool = False,
    ) -> None:
        super().__init__()
        config = config_of(there(folder))
        problem = getattr(config, "problem_type", None)
        check_kind(architecture_of(config), problem, folder, each_token=each_token)
        self.names = _names(config, folder, classes)
        self.network = load_hf_model(there(folder), answer="logits", pad=pad).network
        check_belongs(
            cast(Any, self.network), folder, vocabulary=vocabulary, length=length, pad=pad
        )
        self.folder, self.pad, self.each_token = folder, pad, each_token
        self.note = ""
        self._told = classes is not None
        self._separator: int | None = None
        self.register_buffer("order", torch.arange(len(self.names)), persistent=False)
        self._check_padding(min(vocabulary, _PROBED + 2), min(length, 2 * _PROBED))

    def forward(
        self, ids: Int64[Tensor, " batch longest"]
    ) -> Float[Tensor, " batch *longest classes"]:
        """Logits in the order of the data's classes, per text or per token."""
        mask = real_tokens(ids, self.pad)
        seen = mask.clone()
        # Attention over nothing is no number: an empty text looks at its first padding.
        seen[:, 0] = True
        more = {}
        if self._separator is not None:
            ends = (ids == self._separator).long()
            behind = ends.cumsum(dim=1) - ends
            more["token_type_ids"] = ((behind > 0) & mask).long()
        told = self.network(input_ids=ids, attention_mask=seen.long(), return_dict=True, **more)
        logits: Tensor = told.logits
        return logits.index_select(-1, self.order)

    def match(self, classes: Sequence[str]) -> None:
        """Answer in the order of these classes from now on.

        Args:
            classes: the data's.

        Raises:
            ModelError: there are more or fewer, or they have other names.
        """
        places = matched(self.names, classes, folder=self.folder, told=self._told)
        self.note = ""
        if places is None:
            places = tuple(range(len(classes)))
            shown = ", ".join(f"{a} is {b}" for a, b in zip(self.names, classes, strict=True))
            self.note = (
                f"the answers of {self.folder} have no names, so they were taken in the order of "
                f"the data's classes ({shown}): say `classes` of the teacher's `model` where they "
                "have another order"
            )
        self.order = torch.tensor(places, device=self.order.device)

    def reads_pairs(self, tokenizer: Tokenizer, probe: tuple[str, str]) -> None:
        """Mark the second of two texts from now on, as the model was trained to see it.

        Args:
            tokenizer: of the model.
            probe: a pair of texts, to see how the tokenizer marks them.

        Raises:
            ModelError: it marks pairs in a way that cannot be read off the ids.
            MissingExtraError: tokenizers is not installed.
        """
        accepts = "token_type_ids" in inspect.signature(self.network.forward).parameters
        kinds = getattr(cast(Any, self.network).config, "type_vocab_size", None) or 0
        if accepts and kinds > 1:
            self._separator = _separator(tokenizer, probe, self.folder)

    def _check_padding(self, ids: int, length: int) -> None:
        """Refuse a model that reads its answer off the padding, such as one padded at the left."""
        real = [one for one in range(ids) if one != self.pad][: max(1, length - 1)]
        row = torch.tensor([real])
        longer = torch.tensor([real + [self.pad] * (length - len(real))])
        with torch.no_grad():
            alone, padded = self.eval()(row), self(longer)
        if self.each_token:
            padded = padded[:, : len(real)]
        if not (padded - alone).abs().max() <= TOLERANCE * alone.abs().max().clamp(min=1e-6):
            raise ModelError(
                f"padding behind a text must not change its answer, but it does for {self.folder} "
                f"({type(self.network).__name__}): it reads rows that are filled up in front, "
                "which these are not; choose another model, or give it as a `predictor`"
            )


def matched(
    own: Sequence[str], wanted: Sequence[str], *, folder: str, told: bool = False
) -> tuple[int, ...] | None:
    """Where the answer for each class stands; None where a model's answers have no names.

    Args:
        own: what the model's answers mean, in its order.
        wanted: the data's classes.
        folder: what errors call the model.
        told: whether `own` was said by the recipe and not by the model.

    Raises:
        ModelError: with both lists.

    Example:
        >>> matched(["NEGATIVE", "POSITIVE"], ["positive", "negative"], folder="m")
        (1, 0)
    """
    lists = f"{', '.join(own)} ({len(own)}), and the data has {', '.join(wanted)} ({len(wanted)})"
    who = "`classes` names" if told else f"{folder} tells"
    if len(own) != len(wanted):
        raise ModelError(
            f"teacher and data must have as many classes, but {who} {lists}: use a model that was "
            "fine-tuned for these classes"
        )
    for plain in (str, str.casefold):
        left, right = [plain(name) for name in own], [plain(name) for name in wanted]
        if len(set(left)) == len(left) and set(left) == set(right):
            return tuple(left.index(name) for name in right)
    if not told and all(_PLACEHOLDER.fullmatch(name.casefold()) for name in own):
        return None
    raise ModelError(
        f"the classes of teacher and data must have the same names, but {who} {lists}: say "
        "`classes` of the teacher's `model`, the data's names in the order of its answers"
    )


def classifier_home(folder: str) -> Path:
    """Where configuration and tokenizer of a model lie.

    Raises:
        ModelError: there is no such folder or name.
    """
    return fetched(there(folder), patterns=_READ)


def classifier_tokenizer(folder: str) -> Tokenizer | None:
    """The tokenizer that a model was fine-tuned with; None where its folder holds none.

    Raises:
        ModelError: there is no such folder or name.
        DataError: the tokenizer is damaged, or nothing says how rows are filled up.
    """
    home = classifier_home(folder)
    return read_tokenizer(home) if (home / "tokenizer.json").is_file() else None


def check_kind(told: str, problem: str | None, folder: str, *, each_token: bool) -> None:
    """Refuse a model that was saved without such a head, or that tells something else.

    Args:
        told: its architecture, such as `BertForSequenceClassification`.
        problem: its `problem_type`.
        folder: what errors call it.
        each_token: whether it is to answer for every token.

    Raises:
        ModelError: with what it is.
    """
    wanted = _ENDINGS[each_token]
    if not told.endswith(wanted):
        raise ModelError(
            f"a classifier per {'token' if each_token else 'text'} must have been saved with its "
            f"head, as a `...{wanted}`, but {folder} is a {told}: fine-tune it first, or use "
            "`kind: hf_encoder` with `training`"
        )
    if problem not in (None, "single_label_classification"):
        raise ModelError(
            f"a teacher must give one class per answer, but the `problem_type` of {folder} is "
            f"{problem}: use a model that was fine-tuned for one class per text"
        )


def _names(config: Any, folder: str, classes: Sequence[str] | None) -> tuple[str, ...]:
    named = {int(number): str(name) for number, name in config.id2label.items()}
    own = tuple(named[number] for number in sorted(named))
    if classes is None:
        return own
    if len(classes) != len(own) or len(set(classes)) != len(classes):
        raise ModelError(
            f"`classes` must give each answer of {folder} a name of its own, but it tells "
            f"{', '.join(own)} ({len(own)}) and `classes` names {', '.join(classes)} "
            f"({len(classes)})"
        )
    return tuple(classes)


def _separator(tokenizer: Tokenizer, probe: tuple[str, str], folder: str) -> int | None:
    """The token behind the first text, where the second one is marked as such."""
    try:
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise MissingExtraError("tokenizers", "hf") from error
    told = Library.from_str(tokenizer.content)
    told.no_padding()
    found = told.encode(*probe)
    if not any(found.type_ids):
        return None
    first = found.type_ids.index(1) if 1 in found.type_ids else 0
    mark = found.ids[first - 1] if first else None
    behind = [mark in found.ids[:at] for at in range(len(found.ids))]
    if mark is None or [int(one) for one in behind] != list(found.type_ids):
        raise ModelError(
            "which of two texts a token belongs to must follow from the separator between them, "
            f"but the tokenizer of {folder} marks pairs in another way: give the model as a "
            "`predictor`"
        )
    return int(mark)
