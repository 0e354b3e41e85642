"""The methods in the manual: every kind has its section, and every term that is shown works."""

import re
from functools import cache

import pytest
import torch
import yaml
from sklearn.datasets import load_digits

from manual import PAGES, ROOT, blocks, phases_of, sound, tables, write_titled
from understudy import build, losses, models
from understudy.build.terms import with_adapters
from understudy.contracts import Batch
from understudy.engine import Reading, probe
from understudy.errors import ModelError
from understudy.features.adapters import ADAPTERS
from understudy.models.deployable import Deployable
from understudy.objective import Objective
from understudy.recipe import Source, TermEntry
from understudy.students.reused_head import reused_head
from understudy.tasks import Classification, Embedding
from understudy.teachers.torch_module import TorchTeacher

ROWS = 64
TASK = Classification(classes=tuple("0123456789"))
FACTS = {"channels": 1, "height": 8, "image_width": 8, "width": 10}
RESNETS = ({"kind": "resnet", "depth": 14, "base": 8}, {"kind": "resnet", "depth": 8, "base": 4})
VITS = (
    {"kind": "vit", "patch": 4, "dim": 48, "depth": 12, "heads": 4},
    {"kind": "vit", "patch": 4, "dim": 24, "depth": 4, "heads": 4},
)
# They hold weights while others teach, and may be content with the start.
CONSTRAINTS = {kind for kind, row in losses.CATALOGUE.items() if row.reads == "weights"}
# Plain learning from labels is no method, and a paraphraser only prepares one.
NOT_METHODS = {"hard_label", "hard_value", "soft_value", "paraphraser"} | CONSTRAINTS
SHOWING = [page for page in PAGES if any(phases_of(block) for block in sound(page))]


def sections():
    """Per kind its page and its section; a second one is a mistake."""
    found = {}
    for page, mark in [
        ("objectives.md", r"^### (\w+)$"),
        *((p, r"^## `(\w+)`$") for p in methods()),
    ]:
        for part in re.split(r"^(?=##+ )", PAGES[page], flags=re.MULTILINE):
            kind = re.match(mark, part, flags=re.MULTILINE)
            if kind and (page == "objectives.md" or kind[1] not in ADAPTERS):
                assert kind[1] not in found, f"{kind[1]} has two sections"
                found[kind[1]] = (page, part)
    return found


def methods():
    return [page for page in PAGES if page.startswith("methods/") and page != "methods/adapters.md"]


@pytest.mark.parametrize("kind", losses.CATALOGUE)
def test_every_kind_has_a_section_with_its_paper_and_an_example(kind):
    row, (page, text) = losses.CATALOGUE[kind], sections()[kind]
    assert all(year in text for year in re.findall(r"\d{4}", row.paper))
    whole = text + PAGES[page].split("\n## ")[0]
    assert all(f"`{name}`" in whole for name in row.needs)
    assert re.search(r"[Uu]sual\s+weight", text)
    assert "```python" in text or re.search(rf"```yaml\n[^`]*kind: {kind}\b", text)
    first = re.search(r"[\d.]+", row.usual_weight)
    assert re.search(rf"(?<![\d.]){re.escape(first[0])}(?![\d]|\.\d)", text), first[0]


def test_no_section_is_of_a_kind_that_is_not_there():
    told = {k for k, (page, _) in sections().items() if page != "methods/index.md"}
    assert told == set(losses.CATALOGUE)


def test_every_adapter_has_a_section():
    told = re.findall(r"^## `(\w+)`$", PAGES["methods/adapters.md"], flags=re.MULTILINE)
    assert told == list(ADAPTERS)


def test_the_table_of_all_kinds_is_the_catalogue():
    table = {re.match(r"\[`(\w+)`\]", k)[1]: (k, v) for k, v in tables("table")["kinds"].items()}
    assert list(table) == list(losses.CATALOGUE)
    where = {kind: page for kind, (page, _) in sections().items()}
    for kind, row in losses.CATALOGUE.items():
        link, (family, compares, needs, adapter, weight, recipe) = table[kind]
        page = where[kind].removeprefix("methods/")
        page = page if where[kind].startswith("methods/") else f"../{page}"
        assert link == f"[`{kind}`]({page}#{kind})"
        assert (family, weight) == (row.family, row.usual_weight)
        assert compares
        pairs = "; two rows" if row.related else ""
        assert needs == (", ".join([*row.needs, *row.also]) or "nothing") + pairs
        learns = f"[`{row.adapter}`](adapters.md#{row.adapter})" if row.adapter else "none"
        assert adapter == learns
        path = f"recipes/methods/{kind}.yaml"
        assert recipe == (f"`{path}`" if (ROOT / path).is_file() else "none")


def test_whose_form_is_not_the_default_is_told():
    told = re.search(r"Of\s+(.+?)\s+that form is an argument", PAGES["methods/index.md"], re.DOTALL)
    named = re.findall(r"`(\w+)`", told[1])
    assert named == [kind for kind, row in losses.CATALOGUE.items() if row.authors.arguments]


def test_the_number_of_methods_is_right():
    count = len(set(losses.CATALOGUE) - NOT_METHODS)
    assert f"**{count} methods**" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", SHOWING)
def test_its_terms_are_fine(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_titled(page)
    for block in sound(page):
        task = (yaml.safe_load(block.code) or {}) if "task:" in block.code else {}
        for entry in [entry for phase in phases_of(block) for entry in phase]:
            build.check_term(entry, task.get("task", {}).get("kind", "classification"))


def network(given, seed):
    torch.manual_seed(seed)
    arguments = {k: v for k, v in given.items() if k != "kind"}
    kind = models.CATALOGUE[given["kind"]]
    facts = {k: v for k, v in FACTS.items() if k in kind.__init__.__annotations__}
    return Deployable(preprocess=torch.nn.Identity(), network=kind(**facts, **arguments), width=10)


@cache
def digits():
    data = load_digits()
    inputs = torch.tensor(data.images[:ROWS], dtype=torch.float32).unsqueeze(1) / 16
    return inputs, torch.tensor(data.target[:ROWS])


def both(page, block, entries):
    """Teacher and student of a block, its own where it names them, and provenance."""
    given = yaml.safe_load(block.code) if block else {}
    given = given if isinstance(given, dict) else {}
    teacher, student = VITS if page == "methods/transformers.md" else RESNETS
    own = {side: given.get(side, {}).get("model") for side in ("teacher", "student")}
    # Layers are read in networks that have some; a section about answers may name any.
    if any(build.reads_layers(entry) for entry in entries) and own["student"]:
        teacher, student = own["teacher"], own["student"]
    teacher, student = network(teacher, 1), network(student, 0)
    if not any(entry.kind == "simkd" for entry in entries):
        return teacher, student, {}
    made = reused_head(student.network, teacher.network, digits()[0][:2], seed=0)
    student.network = made.module
    return teacher, student, made.provenance


def matched(entry, teacher, student, provenance):
    if not build.reads_layers(entry):
        return None
    rows = digits()[0][:2]
    return build.match(
        entry,
        student=student,
        teacher=teacher,
        rows=rows,
        told=lambda spots: build.captured(teacher, spots, rows),
        provenance=provenance,
    )


def looked_at(entries, teacher, student, provenance):
    """What the look before training says of some terms."""
    inputs, labels = digits()
    found = [matched(entry, teacher, student, provenance) for entry in entries]
    plain = build.terms(entries, Source(), matched=found)
    known = {"ids": torch.arange(ROWS), "labels": labels, "answers": 10}
    terms = with_adapters(entries, plain, matched=found, known=known, seed=0)
    spots = sorted({pair.teacher for term in terms for pair in term.pairs})
    rows = [losses.CATALOGUE.get(entry.kind) for entry in entries]
    # Terms on vectors take the same ten numbers for one.
    vectors = any(row is not None and row.reads == "embedding" for row in rows)
    task = Embedding(dimension=10) if vectors else TASK
    asked = TorchTeacher(teacher, output=task.output, spots=spots)
    objective = Objective(terms, task=task, offers=asked.offers)
    batch = Batch(inputs=inputs, labels=labels, ids=torch.arange(ROWS))
    return found, probe(
        student=student, objective=objective, teacher=asked, loader=[batch], epochs=10
    )


@pytest.mark.parametrize("page", SHOWING)
def test_its_terms_read_layers_that_are_there_and_pull(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_titled(page)
    for block in sound(page):
        for entries in phases_of(block):
            _, readings = looked_at(entries, *both(page, block, entries))
            teach = [reading for reading in readings if reading.term not in CONSTRAINTS]
            assert teach, (page, block.line)
            assert all(reading.gradient > 0 for reading in teach), (page, block.line)


def shown(kind):
    """The lines below `kind`'s log in the page on objectives."""
    found = [b for b in blocks("objectives.md") if b.language == "text" and kind in b.code]
    assert len(found) == 1
    return found[0].code.splitlines()


def example():
    (block,) = [b for b in blocks("objectives.md") if b.note == "layers: above"]
    return phases_of(block)[0]


def test_the_pairing_is_printed_as_it_is_shown():
    entries = example()
    found, _ = looked_at(entries, *both("objectives.md", None, entries))
    told = [f"{entry.kind}: {one.line()}" for entry, one in zip(entries, found, strict=True) if one]
    assert shown("] from ") == told


def test_the_look_is_printed_as_it_is_shown():
    form = r"(\w+): (\S+), gradient (\S+), weight (\S+?)( \(found.*\))?"
    readings = {}
    for line in shown(", gradient "):
        term, value, gradient, weight, found = re.fullmatch(form, line).groups()
        readings[term] = Reading(
            term=term,
            value=float(value),
            gradient=float(gradient),
            weight=float(weight),
            found=found is not None,
            like=found[len(" (found: as strong as ") : -1] if found else "",
        )
        assert readings[term].line() == line
    entries = example()
    assert list(readings) == [entry.kind for entry in entries]
    for entry in entries:
        reading = readings[entry.kind]
        assert reading.found == (entry.weight == "auto")
        assert reading.found or reading.weight == entry.weight
    pulls = {k: r.weight * r.gradient for k, r in readings.items()}
    given = max(pull for k, pull in pulls.items() if not readings[k].found)
    assert pulls["hint"] == pytest.approx(given, rel=0.002)
    assert pulls[readings["hint"].like] == given


def test_what_a_dry_run_refuses_says_what_is_shown():
    rows = tables("table")["refused"]
    assert rows
    for term, (law,) in rows.items():
        entries = [TermEntry.model_validate(yaml.safe_load(term))]
        with pytest.raises(ModelError) as refused:
            looked_at(entries, *both("objectives.md", None, entries))
        assert str(refused.value) == law
