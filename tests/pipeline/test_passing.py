"""The way of a pass: the backends of an ensemble's members."""

import pytest
import torch
import yaml
from torch import nn

from pipeline.conftest import SMALL, merged
from understudy import recipe as recipes
from understudy.contracts import Silent
from understudy.models.deployable import Deployable
from understudy.pipeline import passing, run
from understudy.pipeline.crew import Crew
from understudy.pipeline.prepare import load
from understudy.pipeline.work import Work
from understudy.teachers.ensemble import EnsembleTeacher
from understudy.teachers.torch_module import TorchTeacher


class Counts(nn.Module):
    """Bytes as numbers."""

    def forward(self, rows):
        return rows.float() / 16


def network(*widths, act=nn.ReLU):
    pairs = zip((64, *widths), (*widths, 10), strict=True)
    layers = [part for sizes in pairs for part in (nn.Linear(*sizes), act())]
    made = nn.Sequential(nn.Flatten(), *layers[:-1])
    return Deployable(preprocess=Counts(), network=made, width=10).eval()


@pytest.fixture
def way(monkeypatch, tmp_path):
    """The way for members that are given, what `choose` was asked and said, and a few rows."""

    def of(*modules):
        members = [TorchTeacher(m or network(), output="logits") for m in modules]
        asked, choose = [], passing.choose

        def watched(module, *, like, **options):
            found = choose(module, like=like, **options)
            asked.append((module, found, like))
            return found

        recipe, place = recipes.loads(yaml.safe_dump(merged(SMALL, {"seeds": 1})), name="r.yaml")
        run(recipe, place=place, out=tmp_path, until="labels")
        monkeypatch.setattr(passing, "choose", watched)
        whole = EnsembleTeacher(members)
        monkeypatch.setattr(passing, "load_teacher", lambda work: (whole, list(modules)))
        work = Work(recipe=recipe, place=place, folder=tmp_path, progress=Silent(), crew=Crew(),
                    load=load)  # fmt: skip
        return passing.choose_way(work, 8, {}), asked, passing.sample(work, 8)

    return of


def test_the_largest_member_chooses_for_those_made_of_the_same_layers(way):
    small, large, other = network(5), network(64, 64), network(16, act=nn.GELU)
    found, asked, _ = way(small, None, large, other)
    assert [module for module, _, _ in asked] == [large, other, small]
    assert [like for _, _, like in asked] == [None, None, asked[0][1]]
    names = [chosen.name for _, chosen, _ in asked]
    # In the recipe's order all the same.
    assert [name for name, _ in found.backends] == [names[2], "predictor", names[0], names[1]]


def test_the_members_stand_in_the_recipes_order(way):
    modules = network(5), network(64), network(9)
    found, _, batch = way(*modules)
    with torch.no_grad():
        expected = [module(batch.inputs) for module in modules]
    torch.testing.assert_close([m(batch)["logits"] for m in found.teacher.members], expected)
