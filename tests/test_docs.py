"""The manual tells the truth: it is run, parsed and compared with the code."""

import contextlib
import enum
import inspect
import io
import json
import os
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
import typer
import yaml
from pydantic import BaseModel
from safetensors.numpy import load_file

from manual import PAGES, ROOT, TEXTS, blocks, recipes_of, tables, write_titled
from understudy import build, data, losses, pipeline
from understudy.build.check import FACTS
from understudy.cli.commands import app
from understudy.cli.main import run as command
from understudy.data.views import CATALOGUE as VIEWS
from understudy.deployed import Deployed
from understudy.features.adapters import ADAPTERS
from understudy.labels.codecs import CATALOGUE as CODECS
from understudy.recipe import Entry, Recipe

CATALOGUES = {
    "source": dict(data.CATALOGUE),
    "model": dict(build.MODELS),
    "view": dict(VIEWS),
    "codec": {k: v for k, v in CODECS.items() if k != "hidden"},
    "loss": {kind: row.loss for kind, row in losses.CATALOGUE.items()},
    "adapter": dict(ADAPTERS),
}
# What an adapter is told by a dry run and by the data: no recipe has it.
FOUND = {"student", "teacher", "ids", "labels", "margins", "student_words", "teacher_words"}
# What stands in for the sections that a snippet leaves out.
REST = {
    "teacher": "teacher: {model: {kind: convnet}, training: {epochs: 30}}",
    "student": "student: {model: {kind: mlp, hidden: [8]}}",
}
# The same where its rows are texts.
REST_OF_TEXTS = {
    "teacher": "teacher: {model: {kind: text_cnn}, training: {epochs: 30}}",
    "student": "student: {model: {kind: text_cnn}}",
}
SMALL = """
name: demo
data: {source: {kind: digits}, rows: 300}
teacher: {model: {kind: mlp, hidden: [16]}, training: {epochs: 1}}
student: {model: {kind: mlp, hidden: [4]}}
steps: [{training: {epochs: 1}, control: false}]
seeds: 1
"""


def python_pages():
    return [p for p in PAGES if any(b.language == "python" and not b.title for b in blocks(p))]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A finished export of digits, small: what the snippets find as `runs/demo`."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "demo.yaml").write_text(SMALL)
    pipeline.run(folder / "demo.yaml", out=folder / "run", until="export")
    return folder / "run"


@pytest.fixture
def workplace(tmp_path, monkeypatch, small_run):
    """An empty folder with that run in it, as the working folder."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(small_run)
    monkeypatch.chdir(tmp_path)
    # Beside other processes, two threads wait for each other longer than they work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def run_python(page):
    """Run every untitled Python block of a page, in order, in one namespace; what it printed."""
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language != "python" or block.title:
            continue
        printed = io.StringIO()
        where = f"{page}, line {block.line}"
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, where, "exec"), names)
        lines = iter(printed.getvalue().splitlines())
        for expected in re.findall(r"^\s*print\(.*\)  # (.+)$", block.code, flags=re.MULTILINE):
            assert expected in lines, f"{where}: never printed {expected!r}"


@pytest.mark.parametrize("page", python_pages())
def test_its_python_runs_and_prints_what_it_says(page, workplace):
    write_titled(page)
    run_python(page)


@pytest.mark.parametrize("page", [page for page in PAGES if recipes_of(page)])
def test_its_recipes_are_fine(page, workplace):
    write_titled(page)
    # They make the files that their recipes name.
    if page in ("first-run.md", "language-models.md", "recipe.md"):
        run_python(page)
    for block in recipes_of(page):
        given = yaml.safe_load(block.code) or {}
        source = given.get("data", {}).get("source", {}).get("kind")
        rest = REST_OF_TEXTS if source == "text" else REST
        missing = [text for section, text in rest.items() if section not in given]
        text = "\n".join([block.code, *missing])
        recipe, _ = build.checked(Path(f"{page}:{block.line}"), text=text)
        assert isinstance(recipe, Recipe)


def test_its_mistakes_look_as_it_shows_them(workplace, capsys):
    shown = 0
    for page in PAGES:
        every = blocks(page)
        for block, after in pairwise(every):
            if block.note.startswith("broken"):
                name = block.note.partition(": ")[2]
                Path(name).write_text(block.code)
                assert command(["check", name]) == 2
                assert capsys.readouterr().err == after.code
                shown += 1
    assert shown


def command_lines():
    """Every command line in a block, and every one in a text, as (place, words, whole)."""
    for page, text in TEXTS.items():
        for block in blocks(page):
            for line in block.code.splitlines():
                found = re.match(r"(?:\$ )?(?:torchrun .*-m )?understudy (.+)", line)
                if found and block.language in ("console", "", "text"):
                    words = shlex.split(found[1], comments=True)
                    if ">" in words:
                        words = words[: words.index(">")]
                    yield f"{page}: {line}", words, True
        for inline in re.findall(r"`(?:python -m )?understudy ([a-z][^`]*)`", text):
            yield f"{page}: {inline}", shlex.split(inline), False


def test_every_command_line_is_one_of_ours():
    group = typer.main.get_command(app)
    seen = set()
    for place, (name, *rest), whole in command_lines():
        assert name in group.commands, place
        found, arguments = group.commands[name], rest
        inner = getattr(found, "commands", {})
        if inner and rest:
            found, arguments = inner[rest[0]], rest[1:]
        known = {flag for p in found.params for flag in p.opts} | {"--help"}
        assert {a for a in arguments if a.startswith("--")} <= known, place
        if whole:
            found.make_context(name, arguments)
            seen.add(name)
    assert seen >= {"run", "predict", "check"}


def test_every_flag_in_the_text_exists():
    group = typer.main.get_command(app)
    known = {flag for one in group.commands.values() for p in one.params for flag in p.opts}
    for page, text in PAGES.items():
        for flag in re.findall(r"`(--[a-z0-9-]+)", text):
            assert flag in known | {"--version", "--help"}, f"{page} names {flag}"


def test_the_table_of_commands_is_whole():
    table = PAGES["first-run.md"].split("## The commands", 1)[1]
    named = set(re.findall(r"^\| `understudy (\w+)` \|", table, flags=re.MULTILINE))
    assert named == set(typer.main.get_command(app).commands)


def sections(model=Recipe):
    """Every typed part of a recipe."""
    found = {model.__name__: model}
    for info in model.model_fields.values():
        for part in parts_in(info.annotation):
            if part.__name__ not in found:
                found |= sections(part)
    return found


def parts_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in parts_in(inner)]


def words_in(annotation):
    """The literal texts that a field may be."""
    if get_origin(annotation) is Literal:
        return [a for a in get_args(annotation) if isinstance(a, str)]
    return [word for inner in get_args(annotation) for word in words_in(inner)]


def shown_default(value):
    """A default as the tables write it; None where they point to a table of its own."""
    if isinstance(value, Entry):
        return "`{" + ", ".join(f"{k}: {v}" for k, v in value.model_dump().items()) + "}`"
    if isinstance(value, BaseModel):
        return None
    if isinstance(value, tuple | list) and any(isinstance(v, BaseModel) for v in value):
        return None
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return f"`{value}`" if value.isalnum() else f"`{json.dumps(value)}`"
    return f"`{json.dumps(value)}`"


def compare(table, name, expected, words):
    """Same names in the same order, same defaults, every literal value named."""
    assert list(table) == list(expected), name
    for field, default in expected.items():
        cell, *rest = table[field]
        if default is inspect.Parameter.empty:
            assert cell.startswith(("required", "from the data")), f"{name}.{field}: {cell}"
        else:
            shown = shown_default(default)
            wrong = f"{name}.{field} is {shown}, the manual says {cell}"
            assert cell == shown if shown else cell.startswith("[below](#"), wrong
        for word in words.get(field, ()):
            if f"`{word}`" not in cell:
                assert f"`{word}`" in rest[0], f"{name}.{field} may be {word}, which is not told"


def test_the_tables_of_fields_are_the_typed_recipe():
    found, typed = tables("fields"), sections()
    assert set(found) == set(typed)
    for name, model in typed.items():
        fields = model.model_fields
        defaults = {
            field: inspect.Parameter.empty if info.is_required() else info.get_default()
            for field, info in fields.items()
        }
        words = {field: words_in(info.annotation) for field, info in fields.items()}
        compare(found[name], name, defaults, words)


def signature_of(what):
    told = FOUND if what in ADAPTERS.values() else ()
    parameters = [p for p in inspect.signature(what).parameters.values() if p.name not in told]
    return (
        {p.name: p.default for p in parameters},
        {p.name: words_in(p.annotation) for p in parameters},
    )


def test_the_tables_of_arguments_are_the_signatures():
    found = tables("arguments")
    wanted = {
        f"{family} {kind}": what
        for family, known in CATALOGUES.items()
        for kind, what in known.items()
    }
    wanted = {k: v for k, v in wanted.items() if signature_of(v)[0]} | {"distill": pipeline.distill}
    assert set(found) == set(wanted)
    for name, what in wanted.items():
        expected, words = signature_of(what)
        table = dict(found[name])
        compare(table, name, expected, words)
        if name.startswith("model "):
            filled = {argument for argument, cells in table.items() if cells[0] == "from the data"}
            needed = {n for n, default in expected.items() if default is inspect.Parameter.empty}
            assert filled == needed & set(FACTS)


@pytest.mark.parametrize(
    ("family", "page"),
    [
        ("source", "recipe.md"),
        ("model", "recipe.md"),
        ("view", "recipe.md"),
        ("loss", "methods/index.md"),
        ("adapter", "methods/adapters.md"),
    ],
)
def test_every_kind_is_in_the_manual(family, page):
    for kind in CATALOGUES[family]:
        assert re.search(rf"`{kind}`|^### {kind}$", PAGES[page], flags=re.MULTILINE), kind


def test_the_label_store_is_as_described(small_run):
    manifest = json.loads((small_run / "labels" / "manifest.json").read_text())
    shard = load_file(small_run / "labels" / manifest["shards"]["file"][0])
    found = tables("keys")
    assert set(found["manifest"]) == set(manifest)
    assert set(found["shard"]) == set(shard)


def test_the_store_can_be_read_without_our_package(workplace):
    reader = next(b for b in blocks("label-store.md") if b.language == "python")
    assert "understudy." not in reader.code
    assert len([line for line in reader.code.splitlines() if line.strip()]) <= 15
    names = {}
    exec(reader.code, names)
    stored = names["labels"]
    assert stored["logits:values"].shape == (len(stored["ids"]), 10)
    assert len(set(stored["ids"].tolist())) == names["manifest"]["rows"]
    shard = load_file(Path("runs/demo/labels") / names["manifest"]["shards"]["file"][0])
    assert all((stored[name] == shard[name]).all() for name in shard)


def test_the_metadata_of_a_file_is_as_described(small_run):
    metadata = Deployed.open(small_run / "export" / "student.int8.onnx").metadata
    assert set(tables("keys")["metadata"]) == set(metadata)


def test_what_distill_gives_is_told():
    told = PAGES["python.md"].split("The result has", 1)[1].split("\n\n", 1)[0]
    for field in pipeline.distilling.Distilled.__dataclass_fields__:
        assert f"`{field}`" in told


def slug(heading):
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def test_every_link_leads_somewhere():
    anchors = {
        page: {
            slug(h)
            for h in re.findall(
                r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE
            )
        }
        for page, text in PAGES.items()
    }
    for page, text in PAGES.items():
        for target, anchor in re.findall(r"\]\(([\w./-]+\.md)?(?:#([\w-]+))?\)", text):
            there = os.path.normpath(Path(page).parent / target) if target else page
            assert there in PAGES, f"{page} links to {there}"
            assert not anchor or anchor in anchors[there], f"{page} links to {there}#{anchor}"


def pages_in(nav):
    return [
        page
        for entry in nav
        for inner in entry.values()
        for page in ([inner] if isinstance(inner, str) else pages_in(inner))
    ]


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages_in(nav)) == sorted(PAGES)


def test_its_files_exist():
    for page, text in TEXTS.items():
        if page == "architecture.md":  # the plan also names what is still to be built
            continue
        for path in re.findall(r"`((?:docs|recipes|tests|src|benchmarks)/[\w/.-]+)`", text):
            assert (ROOT / path).exists(), f"{page} names {path}"
