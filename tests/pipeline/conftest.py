"""One small finished run that the tests of this room share, and recipes to break."""

import copy
from pathlib import Path

import pytest
import yaml

from understudy import recipe as recipes
from understudy.pipeline import run

SMALL = {
    "task": {"kind": "classification"},
    "data": {"source": {"kind": "digits"}, "test": 0.3, "validation": 0.1, "rows": 500},
    "teacher": {"model": {"kind": "mlp", "hidden": [64]}, "training": {"epochs": 6}},
    "student": {"model": {"kind": "mlp", "hidden": [8]}},
    "steps": [{"kind": "distil", "training": {"epochs": 3, "checkpoint_seconds": 0}}],
    "evaluate": {"draws": 200, "latency_seconds": 0.02},
    "seeds": 2,
}


def merged(base, changes):
    result = copy.deepcopy(base)
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(result.get(key), dict)
        inner = inner and value.get("kind") == result[key].get("kind")
        result[key] = merged(result[key], value) if inner else value
    return result


@pytest.fixture
def small():
    """A recipe of seconds as plain data, with changes."""
    return lambda **changes: merged(SMALL, changes)


@pytest.fixture
def run_small(tmp_path):
    """Run a recipe given as plain data in a fresh folder."""

    def start(data, folder="run", **options):
        recipe, place = recipes.loads(yaml.safe_dump(data), name="small.yaml", folder=tmp_path)
        return run(recipe, place=place, out=tmp_path / folder, **options)

    return start


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run's folder and record; tests may read it, not write."""
    folder = tmp_path_factory.mktemp("finished")
    recipe, place = recipes.loads(yaml.safe_dump(SMALL), name="small.yaml")
    return folder, run(recipe, place=place, out=folder)


@pytest.fixture
def copy_of(finished, tmp_path):
    """A copy of the finished run that a test may harm."""
    import shutil

    target = tmp_path / "copy"
    shutil.copytree(finished[0], target)
    return Path(target)


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """A folder of a run that has a teacher and no student yet; tests copy it."""
    from pipeline.lessons import HARD, begun, recipe_of

    folder = tmp_path_factory.mktemp("taught")
    begun(recipe_of(HARD), folder)
    return folder


@pytest.fixture
def place(taught, tmp_path):
    """Gives folders with that teacher, by name."""
    from pipeline.lessons import copied

    return lambda name="one": copied(taught, tmp_path / name)


@pytest.fixture(scope="session")
def with_blocks(tmp_path_factory):
    """A folder of a run that has a teacher to cut and no student yet; tests copy it."""
    from pipeline.chains import DEPTH, cut_from
    from pipeline.lessons import begun

    folder = tmp_path_factory.mktemp("with-blocks")
    begun(cut_from(DEPTH), folder)
    return folder


@pytest.fixture
def cutting(with_blocks, tmp_path):
    """Gives folders with that teacher, by name."""
    from pipeline.lessons import copied

    return lambda name="one": copied(with_blocks, tmp_path / name)
