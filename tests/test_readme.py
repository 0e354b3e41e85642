"""The README tells the truth: its commands run, its snippets work, its table is the file's."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from understudy import recipe as recipes
from understudy.cli.main import run as command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    found, inside = [], None
    for line in README.splitlines():
        if line.startswith("```") and inside is None:
            inside = line.removeprefix("```")
            found.append((inside, []))
        elif line.startswith("```"):
            inside = None
        elif inside is not None:
            found[-1][1].append(line)
    return ["\n".join(lines) for name, lines in found if name == language]


def test_every_make_target_that_it_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        if target in ("demo", "test", "slow", "bench"):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
        else:
            pytest.fail(f"README names `make {target}`, which is not a target")
    for name in re.findall(r"NAME=(\w+)", README):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()


def test_its_files_exist():
    for path in re.findall(r"`((?:docs|recipes)/[\w/.]+|[A-Z]+\.md)`", README):
        assert (ROOT / path).is_file(), path


def test_its_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    lines = [
        f"{a:.4f},{b:.4f},{c:.4f},{'up' if a + b > 0 else 'down'}" for a, b, c in rows.tolist()
    ]
    Path("rows.csv").write_text("\n".join(["a,b,c,label", *lines]))
    Path("new.csv").write_text("\n".join(["a,b,c", "0.1,0.2,0.3"]))
    Path("my_network.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Linear(3, 2)\n"
    )
    torch.save(nn.Linear(3, 2).state_dict(), "trained.pt")
    recipe = yaml.safe_load(blocks("yaml")[0])
    recipe["steps"] = [{"training": {"epochs": 2}}]
    recipe["seeds"] = 1
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    shown = [line.partition("#")[0] for block in blocks("") for line in block.splitlines()]
    commands = [shlex.split(line) for line in shown if line.startswith("understudy ")]
    assert len(commands) == 2
    for name, *arguments in commands:
        assert command(arguments) == 0, (name, arguments, capsys.readouterr().err)


def test_its_recipe_is_a_recipe():
    recipe, mistakes = recipes.validate(yaml.safe_load(blocks("yaml")[0]))
    assert not mistakes
    assert recipe.has_control


def test_its_python_runs():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(90, 5, generator=draw)
    labels = (rows.sum(dim=1) > 0).long()
    loader = DataLoader(TensorDataset(rows, labels), batch_size=30)
    names = {
        "teacher": nn.Linear(5, 2),
        "make_student": lambda: nn.Linear(5, 2),
        "train_loader": loader,
        "validation_loader": loader,
        "test_loader": loader,
    }
    code = blocks("python")[0].replace("seeds=5", "seeds=1, training=Training(epochs=1)")
    exec("from understudy.recipe import Training\n" + code, names)
    assert names["result"].verdict.word == "UNDECIDED"


def test_its_table_is_what_was_measured():
    table = re.search(r"<!-- (few_labels) -->\n(.*?)<!-- end few_labels -->", README, re.DOTALL)
    assert table is not None
    stored = json.loads((ROOT / "benchmarks/results" / f"{table[1]}.json").read_text())["figures"]
    for model in ("teacher", "student", "control", "student_int8"):
        line = next(
            x for x in table[2].splitlines() if x.startswith(f"| {model.replace('_', ' ')} ")
        )
        assert f"{100 * stored[f'{model}_accuracy']:.1f} %" in line
        assert f"{stored[f'{model}_bytes']:,.0f}" in line
