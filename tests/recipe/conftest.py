"""Shared by the tests of recipes."""

import pytest

from understudy.errors import RecipeError
from understudy.recipe import loads

# The shortest recipe there is. What a test writes stands from line 3 on.
BASE = "teacher: {onnx: t.onnx}\nstudent: {model: {kind: mlp}}\n"


@pytest.fixture
def read():
    """A recipe from the shortest one and more lines."""
    return lambda text="", *settings: loads(BASE + text, settings)[0]


@pytest.fixture
def mistakes():
    """The mistakes in the shortest recipe and more lines, each as it is printed."""

    def find(text="", *settings, base=BASE):
        with pytest.raises(RecipeError) as error:
            loads(base + text, settings)
        return [str(mistake) for mistake in error.value.mistakes]

    return find
