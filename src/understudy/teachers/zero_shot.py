"""A text classifier that has seen no label: how near a text is to the descriptions of classes."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.teachers.sentence_encoder import SentenceEncoder
from understudy.teachers.sentence_tokenizer import SentenceTokenizer
from understudy.teachers.text_teacher import Text

# The share of the most entropy that answers have on average, where nobody says the scale.
SPREAD = 0.5
_ROUNDS, _STEPS = 60, 50


class ZeroShot(nn.Module):
    """Token ids to logits: the cosine with each class's direction times a scale, and an offset.

    A text is of the class whose descriptions it is nearest to. This is what a dual encoder makes of
    class names (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision", section 3.1), with sentences on both sides.

    Attributes:
        encoder: of sentences.
        classes: float32 `[classes, width]`, one direction of length 1 per class.
        scale: what cosines are multiplied by.
        offsets: float32 `[classes]`, added to the logits.
    """

    classes: Tensor
    offsets: Tensor

    def __init__(
        self,
        encoder: SentenceEncoder,
        classes: Float[Tensor, " classes width"],
        *,
        scale: float | int,
        offsets: Float[Tensor, " classes"],
    ) -> None:
        """Join the parts; `directions` and `calibrate` find what they need.

        Raises:
            ModelError: the encoder's vectors have another width than the directions.
        """
        super().__init__()
        if classes.shape[1] != encoder.width or len(offsets) != len(classes):
            raise ModelError(
                "classes must be directions among the encoder's vectors, and each have an offset, "
                f"but got {list(classes.shape)} and {list(offsets.shape)} for vectors of "
                f"{encoder.width} numbers"
            )
        self.encoder = encoder
        self.scale = float(scale)
        self.register_buffer("classes", classes.clone())
        self.register_buffer("offsets", offsets.clone())

    def forward(self, ids: Int64[Tensor, " batch length"]) -> Float[Tensor, " batch classes"]:
        """The logits of rows of the encoder's own token ids."""
        vectors = nn.functional.normalize(self.encoder(ids), dim=1)
        return self.scale * vectors @ self.classes.T + self.offsets


class TextsToLogits:
    """A network of token ids as a function of texts, in batches of like length."""

    def __init__(
        self, network: nn.Module, tokenizer: SentenceTokenizer, *, batch_size: int = 64
    ) -> None:
        """Join a network and its own tokenizer."""
        self._network, self._tokenizer = network.eval(), tokenizer
        self._batch_size = batch_size

    def __call__(self, texts: Sequence[Text]) -> Float[Tensor, " texts width"]:
        """One row per text, in their order.

        Raises:
            ModelError: these are pairs of texts.
        """
        single = [text for text in texts if isinstance(text, str)]
        if len(single) < len(texts):
            raise ModelError(
                "this teacher reads single texts, but these rows are pairs: give one text per row"
            )
        rows = self._tokenizer.encode(single)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        answers: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(order), self._batch_size):
                some = order[start : start + self._batch_size]
                longest = max(1, *(len(rows[at]) for at in some))
                ids = torch.full((len(some), longest), self._tokenizer.pad)
                for line, at in enumerate(some):
                    ids[line, : len(rows[at])] = torch.tensor(rows[at])
                answers.append(self._network(ids))
        found = torch.cat(answers)
        return found[torch.tensor(order).argsort()]


def directions(
    embed: Callable[[Sequence[str]], Float[Tensor, " texts width"]],
    classes: Mapping[str, Sequence[str]],
    *,
    template: str = "{}",
) -> Float[Tensor, " classes width"]:
    """One direction per class: the mean of the unit vectors of its names and descriptions.

    Args:
        embed: texts to vectors.
        classes: names and descriptions by class, in the order of the logits.
        template: what each of them is written into, at `{}`.

    Raises:
        ModelError: two classes have one direction.
    """
    means = []
    for told in classes.values():
        vectors = embed([template.replace("{}", text) for text in told])
        means.append(nn.functional.normalize(vectors, dim=1).mean(dim=0))
    found = nn.functional.normalize(torch.stack(means), dim=1)
    alike = (found @ found.T - torch.eye(len(found))).amax()
    if float(alike) > 1 - 1e-6:
        raise ModelError(
            "the classes of a zero-shot teacher must be told apart by their descriptions, but two "
            f"of {', '.join(classes)} have one direction: describe them differently"
        )
    return found


def calibrate(
    cosines: Float[Tensor, " texts classes"],
    *,
    scale: float | int | None = None,
    prior: Sequence[float] | None = None,
) -> tuple[float, Float[Tensor, " classes"]]:
    """The scale and the offsets of the logits, from texts without labels.

    The offsets make the mean of all answers the `prior`. Without them a class whose descriptions
    are nearer to any text at all, whatever it says, is named too often. Where no scale is given,
    the one is taken at which the answers' mean entropy is half of what it is for somebody who knows
    the prior and nothing of the text. That fixes how peaked the answers are, whatever range the
    encoder's cosines have; it says nothing of how often they are right.

    Args:
        cosines: of texts with the directions of the classes.
        scale: what they are multiplied by; None: found as told.
        prior: the share of each class, summing to 1; None: no offsets.

    Raises:
        ModelError: the texts are all alike to the encoder.
    """
    told = cosines.double()
    if float(told.std(dim=0).amax()) < 1e-9:
        raise ModelError(
            "a scale needs texts that differ, but all of these have the same cosine with every "
            "class: give a `scale`, or check the encoder"
        )
    if scale is not None:
        return float(scale), _offsets(told * scale, prior).float()
    shares = prior or [1 / told.shape[1]] * told.shape[1]
    most = -sum(share * math.log(share) for share in shares)
    low, high = 0.1, 10_000.0
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        logits = told * middle
        logs = (logits + _offsets(logits, prior)).log_softmax(dim=1)
        entropy = float(-(logs.exp() * logs).sum(dim=1).mean())
        low, high = (middle, high) if entropy > SPREAD * most else (low, middle)
    found = math.sqrt(low * high)
    return found, _offsets(told * found, prior).float()


def _offsets(logits: Tensor, prior: Sequence[float] | None) -> Tensor:
    """What is added so that the mean distribution is the prior; their mean is 0."""
    offsets = logits.new_zeros(logits.shape[1])
    if prior is None:
        return offsets
    wanted = torch.tensor(list(prior), dtype=logits.dtype).log()
    for _ in range(_ROUNDS):
        mean = (logits + offsets).log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))
        offsets = offsets + wanted - mean
    return offsets - offsets.mean()
