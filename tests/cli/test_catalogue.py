"""`understudy methods`: the list, a page, and both for programs."""

import importlib
import inspect
import json

import pytest

from understudy import build
from understudy.cli.catalogue import entries, page
from understudy.cli.main import run as command
from understudy.features.adapters import ADAPTERS
from understudy.losses import CATALOGUE
from understudy.recipe import loads

KINDS = sorted(CATALOGUE)


def told(capsys, *arguments):
    assert command(["methods", *arguments]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def test_the_list_has_every_kind_with_family_needs_and_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = [[cell.strip() for cell in line.split("│")] for line in told(capsys).splitlines()]
    listed = {cells[1]: cells[2:-1] for cells in lines if len(cells) > 2}
    assert sorted(listed) == KINDS
    for kind, row in CATALOGUE.items():
        family, needs, paper = listed[kind]
        parts = [*row.needs, *(f"hard {name}" for name in row.also)]
        assert family == row.family
        assert needs == (", ".join(parts + ["two rows a batch"] * row.related) or "-")
        # By authors and year; the page has it in full.
        assert row.paper.startswith(paper)
        assert paper[-4:].isdigit() or paper == row.paper


def test_the_json_has_every_kind(capsys):
    found = json.loads(told(capsys, "--json"))
    kinds = found if isinstance(found, dict) else {entry["kind"]: entry for entry in found}
    assert sorted(kinds) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_of_a_kind_says_how_to_call_the_authors_form(kind, capsys):
    found = json.loads(told(capsys, kind, "--json"))
    module, _, name = found["function"].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    assert function is CATALOGUE[kind].function
    assert list(found["function_arguments"]) == list(inspect.signature(function).parameters)
    assert set(found["authors"]["arguments"]) <= set(found["function_arguments"])
    assert found["authors"]["source"]
    for argument in found["function_arguments"].values():
        assert argument["type"]
        assert argument["required"] or "default" in argument


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_a_kind_has_its_paper_its_needs_and_its_authors(kind, capsys):
    text, row = told(capsys, kind), CATALOGUE[kind]
    assert text.startswith(f"{kind}\n")
    for part in (row.family, row.paper, row.usual_weight, row.authors.source):
        assert part in text
    assert ("adapter " in text) is bool(row.adapter)
    if row.adapter:
        assert inspect.getdoc(ADAPTERS[row.adapter]).splitlines()[0] in text
    assert ("two rows a batch" in text) is row.related


@pytest.mark.parametrize("kind", KINDS)
def test_the_line_for_a_recipe_can_be_written_into_one(kind):
    text = page(entries()[kind])
    (line,) = [line for line in text.splitlines() if line.startswith("in a recipe")]
    objective = line.removeprefix("in a recipe").strip().removeprefix("- ")
    recipe, _ = loads(
        "teacher: {onnx: t.onnx}\nstudent: {model: {kind: mlp}}\n"
        f"task: {{kind: {CATALOGUE[kind].tasks[0]}}}\nsteps: [{{objective: [{objective}]}}]"
    )
    (term,) = recipe.steps[0].objective
    assert term.kind == kind
    build.check_term(term, recipe.task.kind)


def test_an_unknown_kind_is_told_with_the_near_one(capsys):
    assert command(["methods", "soft_traget"]) == 2
    assert "did you mean `soft_target`" in capsys.readouterr().err
