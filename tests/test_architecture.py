"""The floor plan, the import linter and the source tree say the same."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLAN = (ROOT / "docs" / "architecture.md").read_text()


def floors_of_the_plan():
    block = PLAN.split("## Floors", 1)[1].split("## Rooms", 1)[0]
    lines = [line.strip() for line in block.splitlines() if line.startswith("    ")]
    return [[room.strip() for room in line.partition("  ")[0].split("|")] for line in lines]


def contract():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return tool["importlinter"]["contracts"][0]


def test_the_linter_knows_the_same_floors_as_the_plan():
    layers = [[room.strip(" ()") for room in layer.split("|")] for layer in contract()["layers"]]
    assert layers == floors_of_the_plan()


def test_the_linter_is_exhaustive():
    assert contract()["exhaustive"] is True


def test_every_room_is_on_the_plan_and_every_built_room_is_required():
    source = ROOT / "src" / "understudy"
    built = {p.stem for p in source.iterdir() if p.is_dir() or p.suffix == ".py"}
    built -= {"__init__", "__main__", "__pycache__", "py"}
    planned = {room for floor in floors_of_the_plan() for room in floor}
    assert built <= planned
    optional = set(re.findall(r"\((\w+)\)", " ".join(contract()["layers"])))
    assert not (optional & built), "a built room is still in brackets in pyproject.toml"


def test_no_room_has_a_forbidden_name():
    names = {p.stem for p in (ROOT / "src").rglob("*.py")}
    assert not names & {"utils", "common", "core", "misc", "helpers"}


def test_no_file_has_grown_beyond_a_hard_look():
    long = {
        str(p.relative_to(ROOT)): n
        for p in (ROOT / "src").rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 330
    }
    assert not long
