"""The manual as tests read it: its pages, their fenced blocks and their marked tables."""

import re
from pathlib import Path

import yaml

from understudy.recipe import TermEntry

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
TEXTS = {**PAGES, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()}


class Block:
    """One fenced block."""

    def __init__(self, page, line, info, code, note):
        self.page, self.line, self.info, self.code, self.note = page, line, info, code, note
        self.language = info.partition(" ")[0]
        title = re.search(r'title="([^"]+)"', info)
        self.title = title[1] if title else None


def blocks(page):
    found, inside, note = [], None, ""
    for number, line in enumerate(TEXTS[page].splitlines(), start=1):
        if line.startswith("```") and inside is None:
            inside = (number, line.removeprefix("```"), [], note)
        elif line.startswith("```"):
            at, info, lines, above = inside
            found.append(Block(page, at, info, "\n".join(lines) + "\n", above))
            inside = None
        elif inside is not None:
            inside[2].append(line)
        comment = re.fullmatch(r"<!-- (.+) -->", line)
        note = comment[1] if comment else note if not line.strip() else ""
    return found


def tables(prefix):
    """Per marked table its name and its rows: `<!-- fields: Recipe -->` above a table."""
    found = {}
    for page, text in PAGES.items():
        for name, body in re.findall(
            rf"<!-- {prefix}:? (.+?) -->\n((?:\|.*\n)+)", text, flags=re.MULTILINE
        ):
            lines = [
                [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|\n"))]
                for line in body.splitlines()
            ]
            assert name not in found, f"{page} has a second table for {name}"
            found[name] = {cells[0].strip("`"): cells[1:] for cells in lines[2:]}
    return found


def sound(page):
    """Its YAML blocks, without those that show a mistake."""
    return [b for b in blocks(page) if b.language == "yaml" and not b.note.startswith("broken")]


def recipes_of(page):
    """Blocks that hold a recipe, or sections of one."""
    return [b for b in sound(page) if not isinstance(yaml.safe_load(b.code), list)]


def terms_of(page):
    """Blocks that hold nothing but terms."""
    return [b for b in sound(page) if isinstance(yaml.safe_load(b.code), list)]


def phases_of(block):
    """The terms of a block, phase by phase."""
    given = yaml.safe_load(block.code)
    if isinstance(given, list):
        raw = [given]
    else:
        steps = (given or {}).get("steps", [])
        phases = [phase for step in steps for phase in step.get("phases", [step])]
        raw = [phase["objective"] for phase in phases if "objective" in phase]
    return [[TermEntry.model_validate(term) for term in phase] for phase in raw]


def write_titled(page):
    """The files that a page shows, in the working folder."""
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.code)
