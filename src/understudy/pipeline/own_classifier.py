"""A fine-tuned classifier as a run's teacher: its classes, its tokens, pairs as it knows them."""

from torch import nn

from understudy import build
from understudy.deployed.texts import Tokenizer, same_tokens
from understudy.errors import DataError, ModelError
from understudy.pipeline.work import Work
from understudy.recipe import Entry, Source
from understudy.recipe.texts import EACH_TOKEN
from understudy.tasks import Classification, TokenClassification
from understudy.teachers.hf_classifier import HFClassifier, classifier_tokenizer

KIND = "hf_classifier"


def classifier_folder(entry: Entry | None, place: Source) -> str | None:
    """The folder, or the name on the hub, of a fine-tuned classifier; else None."""
    if entry is None or entry.kind != KIND:
        return None
    return build.folder(str(entry.parameters["folder"]), place)


def reads_alone(work: Work) -> tuple[str, Tokenizer] | None:
    """Folder and tokenizer of a teacher that may read other tokens than the student; else None.

    Raises:
        DataError: its tokenizer is damaged.
        ModelError: there is no such model, or it has no tokenizer and nobody gave it one.
    """
    folder = classifier_folder(work.recipe.teacher.model, work.place)
    if folder is None or work.recipe.task.kind in EACH_TOKEN:
        return None
    own = _tokenizer(work, folder)
    return None if own is None else (folder, own)


def settle(work: Work, network: nn.Module, who: str) -> None:
    """Give a classifier the data's order of classes, and hold its tokens against its rows.

    Other networks stay as they are.

    Raises:
        DataError: its tokenizer is damaged.
        ModelError: other classes, or rows in other tokens than its own.
    """
    if not isinstance(network, HFClassifier):
        return
    material = work.teaching
    task, tokens = material.task, material.tokenizer
    assert tokens is not None  # `build.network` refuses rows that are no texts
    own = _tokenizer(work, network.folder)
    if own is not None and not same_tokens(own, tokens):
        raise ModelError(
            f"{who} must read its own tokens, but the run's tokenizer is not the one in "
            f"{network.folder}: name that folder as `data.tokenizer` (only a single teacher of "
            "whole texts may have a tokenizer beside the student's)"
        )
    if isinstance(task, Classification | TokenClassification):
        network.match(task.classes)
    texts = material.rows.texts
    if texts and len(material.rows.columns or ()) > 1:
        network.reads_pairs(tokens, (texts[0][0], texts[0][1]))


def _tokenizer(work: Work, folder: str) -> Tokenizer | None:
    own = classifier_tokenizer(folder)
    if own is None and work.recipe.data.tokenizer.file is None:
        raise DataError(
            f"a fine-tuned model reads the tokens that it was trained with, but {folder} has no "
            "`tokenizer.json`: make it with `AutoTokenizer.from_pretrained(...).save_pretrained("
            "...)`, or name the model's tokenizer in `data.tokenizer`"
        )
    return own
