"""Views of a recipe: what is made of an entry, and every mistake that can be seen before."""

import json

import pytest
import torch

from understudy import build
from understudy.build.schema import schema
from understudy.data.tokens import TokenFacts
from understudy.data.views import Crop, Erase, Mixup, Own
from understudy.errors import ModelError, RecipeError
from understudy.recipe import Entry, Source

OWN = """
import torch

def noisy(*, strength=3):
    return lambda image: image + torch.randint(0, strength, image.shape, dtype=image.dtype)

def shifted():
    def transform(rows, seeds):
        return rows + (seeds % 5).to(rows.dtype)[:, None, None, None]
    transform.batched = True
    return transform

def nothing():
    return 3

def fails():
    raise KeyError("no such file")
"""
RECIPE = """
teacher: {model: {kind: convnet}, training: {epochs: 1}}
student: {model: {kind: mlp, hidden: [8]}}
data: {source: {kind: digits}, views: %s}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def entries(*parts):
    return [Entry.model_validate(part) for part in parts]


def own(name, **arguments):
    return {"kind": "custom", "target": f"own.py:{name}", "arguments": arguments}


def laws(views, folder):
    """The mistakes of a recipe with these views, as texts."""
    text = RECIPE % json.dumps(views)
    try:
        build.checked(folder / "recipe.yaml", text=text)
    except RecipeError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


def test_entries_become_a_chain(folder):
    given = entries({"kind": "crop", "padding": 2}, {"kind": "erase", "share": 1},
                    own("noisy", strength=5), {"kind": "mixup", "alpha": 1})  # fmt: skip
    made = build.views(given, Source(folder=folder), seed=8)
    assert made.seed == 8
    assert made.mixes
    crop, erase, custom, mixup = made.operations
    assert (crop, erase, mixup) == (Crop(padding=2), Erase(share=1.0), Mixup(alpha=1.0))
    assert isinstance(custom, Own)
    assert not custom.batched


def test_a_transform_of_ones_own_is_replayed(folder):
    rows, ids = torch.zeros(20, 4, 4, 1, dtype=torch.uint8), torch.arange(20)
    for name in ("noisy", "shifted"):
        made = build.views(entries(own(name)), Source(folder=folder), seed=1)
        first = made(rows, ids, torch.ones(20).long())
        again = made(rows.flip(0), ids.flip(0), torch.ones(20).long()).flip(0)
        assert torch.equal(first, again)
        assert len(first.flatten(1).unique(dim=0)) > 4
        assert made.operations[0].batched == (name == "shifted")


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("nothing", "`own.py:nothing` of `data.views` must be a factory that returns a transform"),
        ("fails", "`fails` of the recipe fails: KeyError: 'no such file'"),
        ("nowhere", "has no `nowhere`"),
    ],
)
def test_a_factory_that_gives_no_transform_is_refused(folder, name, law):
    with pytest.raises(ModelError, match=law):
        build.views(entries(own(name)), Source(folder=folder), seed=1)


def test_sound_views_have_no_mistakes(folder):
    every = [{"kind": k} for k in ("crop", "flip", "erase", "colour")]
    assert laws([*every, own("noisy", strength=2), {"kind": "mixup", "alpha": 0.2}], folder) == []
    assert laws([*every, {"kind": "cutmix"}], folder) == []


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (
            [{"kind": "mixup"}, {"kind": "flip"}],
            ["data.views[0].kind: a view that mixes rows must be the last one, but got it as "
             "number 1 of 2: move it to the end"],
        ),
        (
            [{"kind": "mixup"}, {"kind": "cutmix"}],
            ["data.views[0].kind: at most one view may mix rows, but got 2: keep one, and as the "
             "last view"],
        ),
        (
            [{"kind": "cutmix"}, {"kind": "mixup"}, {"kind": "flip"}],
            ["data.views[0].kind: at most one view may mix rows, but got 2",
             "data.views[1].kind: a view that mixes rows must be the last one"],
        ),
        (
            [{"kind": "mixup", "alpha": 0}],
            ["data.views[0].alpha: `alpha > 0` must hold and be finite, but got 0.0"],
        ),
        (
            [{"kind": "erase", "smallest": 0.5}],
            ["data.views[0].smallest: `0 < smallest <= largest <= 1` must hold"],
        ),
        (
            [{"kind": "colour", "hue": 0.1}],
            ["data.views[0].hue: unknown parameter `hue`"],
        ),
        (
            [{"kind": "colur"}],
            ["data.views[0].kind: unknown kind `colur`: did you mean `colour`? known: colour, "
             "crop, custom, cutmix, erase, flip, mixup"],
        ),
        (
            [own("nowhere")],
            ["data.views[0].target: `own.py` has no `nowhere`"],
        ),
        (
            [{"kind": "custom"}],
            ["`kind: custom` needs `target: package.module:name`"],
        ),
        (
            [own("noisy", strong=2)],
            ["data.views[0].arguments.strong: unknown parameter `strong`"],
        ),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(folder, views, expected):
    found = laws(views, folder)
    assert len(found) == len(expected)
    for law, wanted in zip(found, expected, strict=True):
        assert wanted in law


def test_the_schema_knows_every_kind():
    branches = schema()["$defs"]["DataSection"]["properties"]["views"]["items"]["oneOf"]
    kinds = [branch["properties"]["kind"]["const"] for branch in branches]
    texts = ["token_dropout", "token_crop"]
    assert kinds == ["crop", "flip", "erase", "colour", "mixup", "cutmix", *texts, "custom"]
    assert "target" in branches[-1]["required"]
    erase = branches[kinds.index("erase")]
    assert erase["properties"]["aspect"] == {"type": "number", "default": 0.3}


def test_views_of_texts_are_told_the_tokenizer_and_refused_without_one():
    tokens = TokenFacts(
        vocabulary=50, pad=0, mask=3, special=(0, 1, 2, 3), length=8, fingerprint="x"
    )
    entries = [Entry.model_validate({"kind": "token_dropout", "share": 0.5, "by": "delete"})]
    chain = build.views(entries, seed=0, tokens=tokens)
    assert chain.operations[0].pad == 0
    assert chain.operations[0].special == (0, 1, 2, 3)
    with pytest.raises(ModelError, match="`token_dropout` is for texts, but these rows are none"):
        build.views(entries, seed=0)
