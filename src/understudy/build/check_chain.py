"""What is wrong with cuts and with the order of steps, beyond the form of each."""

from collections.abc import Iterator

from understudy.build.layers import reads_layers
from understudy.errors import Mistake
from understudy.recipe import Learning, Recipe

# What another shape of the student means for terms that have found its layers already.
_AFTER = (
    "the layers of the student are found once, before its first step, but `{kind}` compares layers "
    "in or after a step that changes them: write that cut into `student.from_teacher`, or "
    "compare answers only"
)


def chain_mistakes(recipe: Recipe) -> Iterator[Mistake]:
    """Mistakes in where a student comes from and in what its steps do."""
    yield from _teacher(recipe)
    yield from _budget(recipe)
    yield from _frozen(recipe)
    yield from _layers(recipe)


def _teacher(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.student.inherits and recipe.teacher.model is None:
        others = ("onnx", "predictor", "zero_shot", "ensemble")
        given = next((n for n in others if getattr(recipe.teacher, n)), "none")
        law = (
            "a student is cut from a teacher that is one PyTorch `model`, but the teacher is "
            f"`{given}`: give `student.model` instead"
        )
        field = "from_teacher" if recipe.student.from_teacher else "blockwise"
        yield Mistake(path=("student", field), law=law)


def _budget(recipe: Recipe) -> Iterator[Mistake]:
    """A student that is put together from blocks is chosen for a budget."""
    section, budget = recipe.student.blockwise, recipe.budget
    limits = (budget.parameters, budget.bytes, budget.flops, budget.latency_ms)
    if section is not None and not section.keep.limits() and not any(limits):
        law = (
            "a blockwise student is chosen for a budget, but none is given: write "
            "`keep: {ms: 0.5}` (a share of the teacher's) here, or a `budget` of parameters, "
            "bytes, flops or latency_ms"
        )
        yield Mistake(path=("student", "blockwise"), law=law)


def _frozen(recipe: Recipe) -> Iterator[Mistake]:
    """Weights that are frozen cannot be changed by later steps."""
    if not any(cut.kind == "lora" for cut in recipe.student.from_teacher):
        return
    for number, step in enumerate(recipe.steps):
        if step.kind in ("cut", "prune") or getattr(step, "aware", False):
            law = (
                f"a student of `kind: lora` has frozen weights, but `{step.kind}` changes them "
                "while it learns: cut before it in `from_teacher`, or train all weights"
                + (", or leave out `aware`" if step.kind == "quantize" else "")
            )
            yield Mistake(path=("steps", number, "kind"), law=law)


def _layers(recipe: Recipe) -> Iterator[Mistake]:
    changed = False
    for link in recipe.chain:
        changed = changed or bool(link.cuts) or link.aware is not None
        step = recipe.steps[link.step]
        # The rounds of a step have the same terms.
        if not changed or not link.last or not isinstance(step, Learning):
            continue
        for number, phase in enumerate(link.phases):
            for place, entry in enumerate(phase.objective):
                if reads_layers(entry):
                    inside = ("phases", number) if step.phases else ()
                    path = ("steps", link.step, *inside, "objective", place)
                    yield Mistake(path=path, law=_AFTER.format(kind=entry.kind))
