"""Errors that a user can fix: their texts."""

import inspect

import pytest

from understudy import errors
from understudy.errors import (
    MissingExtraError,
    Mistake,
    RecipeError,
    UnderstudyError,
    did_you_mean,
    dotted,
)


def test_everything_a_user_can_fix_has_one_parent():
    found = inspect.getmembers(errors, inspect.isclass)
    classes = [c for _, c in found if c.__module__ == errors.__name__]
    failures = [c for c in classes if issubclass(c, Exception)]
    assert len(failures) >= 8
    assert all(issubclass(c, UnderstudyError) for c in failures)
    assert all(c.__name__.endswith("Error") for c in failures)
    assert all(c.__doc__ for c in classes)


@pytest.mark.parametrize(("path", "text"), [
    ((), ""),
    (("seeds",), "seeds"),
    (("steps", 0, "kind"), "steps[0].kind"),
    (("steps", 0, "objective", 12, "weight"), "steps[0].objective[12].weight"),
    ((3, "a"), "[3].a"),
    (("a", 1, 2), "a[1][2]"),
])  # fmt: skip
def test_a_path_is_written_as_people_write_it(path, text):
    assert dotted(path) == text


def test_a_mistake_says_line_place_and_law():
    mistake = Mistake(path=("steps", 0, "kind"), law="unknown kind `a`", line=7)
    assert str(mistake) == "line 7: steps[0].kind: unknown kind `a`"
    assert str(Mistake(path=("seeds",), law="no")) == "seeds: no"
    assert str(Mistake(path=(), law="no", line=1)) == "line 1: recipe: no"


def test_a_recipe_error_lists_every_mistake_in_the_files_order():
    late, early = (Mistake(path=("b",), law="2", line=9), Mistake(path=("a",), law="1", line=3))
    error = RecipeError([Mistake(path=("c",), law="3"), late, early], "my.yaml")
    assert str(error) == "my.yaml: 3 mistakes\n  line 3: a: 1\n  line 9: b: 2\n  c: 3"
    assert [m.law for m in error.mistakes] == ["1", "2", "3"]


def test_one_mistake_is_one_mistake():
    assert str(RecipeError([Mistake(path=("a",), law="1")])) == "recipe: 1 mistake\n  a: 1"


def test_mistakes_of_one_line_keep_their_order():
    given = [Mistake(path=(name,), law="", line=2) for name in "zxy"]
    assert [m.path for m in RecipeError(given).mistakes] == [("z",), ("x",), ("y",)]


def test_a_misspelt_word_gets_a_suggestion_and_the_words_there_are():
    known = ["epochs", "batch_size", "optimizer"]
    assert did_you_mean("epoch", known) == (
        "did you mean `epochs`? known: batch_size, epochs, optimizer"
    )
    assert did_you_mean("zzz", known) == "known: batch_size, epochs, optimizer"
    assert did_you_mean("zzz", []) == "known: none"


def test_a_missing_library_names_its_extra_and_the_line_to_type():
    text = str(MissingExtraError("onnx", "train"))
    assert "`onnx`" in text
    assert 'pip install "understudy[train]"' in text
