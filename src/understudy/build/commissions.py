"""What a recipe's teacher is to write, and what is wrong with it."""

from collections.abc import Iterator
from typing import Any

from understudy.deployed.sampling import Sampling
from understudy.errors import Mistake
from understudy.recipe import Entry, Recipe, Source
from understudy.teachers.writing import Commission

KIND = "teacher_text"


def commission(entry: Entry, place: Source) -> Commission:
    """What a source of kind `teacher_text` asks of the teacher.

    Raises:
        ValueError: a number is out of its range, or a file of prompts is not there.
    """
    given: dict[str, Any] = entry.parameters
    sampling = None
    if given.get("temperature", 1.0) is not None:
        sampling = Sampling(
            temperature=given.get("temperature", 1.0),
            top_k=given.get("top_k"),
            top_p=given.get("top_p"),
        )
    return Commission(
        count=given["count"],
        most=given.get("max_tokens", 256),
        prompts=_prompts(given.get("prompts"), place),
        sampling=sampling,
        seed=given.get("seed", 0),
    )


def _prompts(given: Any, place: Source) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        path = place.resolve(given)
        if not path.is_file():
            raise ValueError(f"a file of prompts must exist, but there is no {path}: correct it")
        given = path.read_text(encoding="utf-8").splitlines()
    found = tuple(str(prompt) for prompt in given if str(prompt).strip())
    if not found:
        raise ValueError("`prompts` must hold a text, but holds none: leave it out for no prompt")
    return found


def commission_mistakes(recipe: Recipe, place: Source) -> Iterator[Mistake]:
    """Why a recipe's teacher cannot write its texts."""
    source, teacher = recipe.data.source, recipe.teacher
    if source.kind != KIND:
        return
    at = ("data", "source", "kind")
    if recipe.task.kind != "language_model":
        law = f"`{KIND}` is for a language model, but the task is {recipe.task.kind}: use another"
        yield Mistake(path=at, law=law)
        return
    if teacher.model is None or teacher.training is not None:
        law = (
            f"`{KIND}` is written before anything is trained, so the teacher must be a `model` "
            "that comes trained: `kind: hf_causal`, or one with `weights`"
        )
        yield Mistake(path=at, law=law)
    if recipe.data.tokenizer.file is None:
        law = (
            f"`{KIND}` is written with the teacher's tokenizer: name its folder or "
            "`tokenizer.json` in `data.tokenizer`"
        )
        yield Mistake(path=at, law=law)
    try:
        commission(source, place)
    except KeyError:
        return  # what is required is told with the other parameters
    except (ValueError, TypeError) as error:
        yield Mistake(path=("data", "source"), law=str(error))
