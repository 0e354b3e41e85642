"""Small lessons of a recipe: everything up to trained arms, without export and evidence."""

import shutil
from contextlib import contextmanager

import yaml

from understudy import build
from understudy import recipe as recipes
from understudy.folders import make_folder
from understudy.pipeline.crew import Crew
from understudy.pipeline.distil import distil
from understudy.pipeline.prepare import load, prepare
from understudy.pipeline.student import begin
from understudy.pipeline.work import Work

BASE = {
    "data": {"source": {"kind": "digits"}, "test": 0.3, "validation": 0.1, "rows": 120},
    "teacher": {
        "model": {"kind": "resnet", "depth": 8, "base": 4},
        "training": {"epochs": 1, "batch_size": 32},
    },
    "student": {"model": {"kind": "resnet", "depth": 8, "base": 2}},
    "seeds": 1,
}
# 108 of the rows are trained on, in batches of 32.
STEPS = 4
HARD = {"kind": "hard_label"}
TRAINING = {"epochs": 2, "batch_size": 32, "checkpoint_seconds": 0.0}


class StoppedError(Exception):
    """What stops a lesson."""


class Lines:
    """Progress that remembers what was said, and may stop a piece of work at a step.

    `which` counts the pieces of that name: a student of two phases has two.
    """

    def __init__(self, stop=None, at=0, which=1):
        self.said, self._stop, self._at, self._left = [], stop, at, which

    def say(self, line):
        self.said.append(line)

    @contextmanager
    def track(self, name, total, unit):
        self._left -= name == self._stop
        stops = name == self._stop and self._left == 0

        def tracker(done, note=""):
            if stops and done == self._at:
                raise StoppedError

        yield tracker


def recipe_of(*objective, phases=None, control=False, seeds=1, **changes):
    """A recipe as plain data."""
    step = {"training": TRAINING, "control": control}
    step |= {"phases": phases} if phases else {"objective": list(objective)}
    return {**BASE, "steps": [step], "seeds": seeds, **changes}


def work_of(data, folder, progress=None):
    """A run that has done nothing yet."""
    recipe, place = recipes.loads(yaml.safe_dump(data), name="small.yaml", folder=folder)
    build.check(recipe, place)
    return Work(
        recipe=recipe,
        place=place,
        folder=make_folder(folder / "run"),
        progress=progress or Lines(),
        crew=Crew(),
        load=load,
    )


def begun(data, folder, progress=None):
    """A run with its teacher."""
    work = work_of(data, folder, progress)
    prepare(work)
    return work, begin(work)


def learned(data, folder, progress=None):
    """A run with its trained arms."""
    work, loaded = begun(data, folder, progress)
    arms, _ = distil(work, loaded)
    return work, arms


def copied(source, target):
    """A folder like another one, to go on in."""
    shutil.copytree(source, target)
    return target
