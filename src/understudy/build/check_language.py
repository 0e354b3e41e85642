"""Mistakes of a recipe for a language model: what makes no sense of documents and their tokens."""

from collections.abc import Iterator

from understudy.errors import Mistake
from understudy.recipe import Recipe

# Sources that give no texts.
_OTHERS = frozenset({"digits", "diabetes", "arrays", "idx", "csv", "parquet", "images"})


def language_mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Everything that a language model's data, teacher and labels cannot be."""
    data = recipe.data
    if data.source.kind in _OTHERS:
        law = (
            f"a language model learns texts, but `{data.source.kind}` gives none: use "
            "`kind: documents` or `kind: completions`"
        )
        yield Mistake(path=("data", "source", "kind"), law=law)
    if data.source.kind == "text" and data.source.parameters.get("target") is not None:
        law = "a language model has no labels but the text itself: remove `target`"
        yield Mistake(path=("data", "source", "target"), law=law)
    if data.labelled is not None or data.unlabelled:
        name = "labelled" if data.labelled is not None else "unlabelled"
        law = f"every text is its own label here, so `{name}` has no meaning: remove it"
        yield Mistake(path=("data", name), law=law)
    if data.views:
        law = (
            "a language model predicts the tokens that are there, and a view would change them: "
            "remove `views`"
        )
        yield Mistake(path=("data", "views"), law=law)
    told = data.tokenizer.model_fields_set
    if "train" in told and data.tokenizer.train == "wordpiece":
        law = (
            "a language model must be able to write every text, and `wordpiece` forgets spaces and "
            "capitals: use `train: bpe`, the default here"
        )
        yield Mistake(path=("data", "tokenizer", "train"), law=law)
    if recipe.teacher.ensemble:
        law = "states of several models have no one head, so there is no ensemble: give one `model`"
        yield Mistake(path=("teacher", "ensemble"), law=law)
    if recipe.labels.backend not in ("auto", "eager"):
        law = (
            f"a language model is asked as it is, but got `backend: {recipe.labels.backend}`: "
            "leave it out"
        )
        yield Mistake(path=("labels", "backend"), law=law)
