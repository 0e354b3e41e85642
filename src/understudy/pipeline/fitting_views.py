"""Views that these rows cannot have: of images for texts, of numbers for categories."""

from understudy.data.views import CATALOGUE as VIEWS
from understudy.data.views import FOR_TABLES, FOR_TEXTS
from understudy.data.wording import quoted
from understudy.errors import DataError
from understudy.pipeline.work import Work


def fitting_views(work: Work) -> None:
    """Refuse them.

    Raises:
        DataError: naming them.
    """
    kinds = [view.kind for view in work.recipe.data.views]
    form = work.facts["preprocess"]["form"]
    fit = {"text": FOR_TEXTS, "table": FOR_TABLES}.get(form, frozenset(VIEWS) - FOR_TEXTS)
    odd = [kind for kind in kinds if kind not in fit and kind != "custom"]
    if odd:
        meant = "texts" if set(odd) <= FOR_TEXTS else "images"
        own = {"text": "texts", "table": "a table"}.get(form, "images")
        raise DataError(
            f"`data.views` ({', '.join(odd)}) are for {meant}, but these rows are {own}: "
            "remove them"
        )
    coded = [c["name"] for c in work.facts["columns"] if c["categories"] is not None]
    if "mixup" in kinds and coded:
        raise DataError(
            "`mixup` takes the mean of numbers, but these columns hold categories: "
            f"{quoted(coded)}. Remove it from `data.views`, or leave the columns out"
        )
