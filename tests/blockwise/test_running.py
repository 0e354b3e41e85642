"""`understudy blockwise` from the recipe to the report, on scikit-learn's digits."""

import json

import pytest

from understudy.blockwise.running import run
from understudy.cli.main import run as command
from understudy.errors import ExportError, ModelError, RecipeError
from understudy.folders import read_json

RECIPE = """
name: blocks
teacher:
  model: {kind: mlp, hidden: [40, 40, 40, 40]}
  training: {epochs: 8}
student:
  blockwise:
    candidates: {kinds: [narrower, low_rank, skip], shares: {narrower: [0.5], low_rank: [0.25]}}
    local: {rows: 600, epochs: 3}
    keep: {parameters: 0.6}
    latency: {seconds: 0.02}
    along: parameters
    front: 4
steps:
  - {kind: distil, training: {epochs: 3}}
evaluate: {draws: 200, latency_seconds: 0.02}
seeds: 1
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One whole run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "blocks.yaml").write_text(RECIPE)
    outcome = run(folder / "blocks.yaml", out=folder / "out")
    return folder, outcome


def test_the_student_is_put_together_within_its_budget(done):
    folder, outcome = done
    record = outcome.record.data
    told = record["blockwise"]
    assert record["verdict"]["word"]
    whole, small = (record["models"][name]["parameters"] for name in ("teacher", "student"))
    assert small <= 0.6 * whole
    assert told["stitched"]["choice"]["costs"]["parameters"] == small
    assert told["stitched"]["over"] == {}
    assert set(told["stitched"]["choice"]["labels"].values()) != {"keep"}
    assert told["local"]["failed"] == {}
    assert len(told["blocks"]) == len(told["partition"]["blocks"])
    assert (folder / "out" / "export" / "student.onnx").is_file()


def test_training_the_whole_starts_from_what_was_taught(done):
    _, outcome = done
    start, end = (
        next(row for row in outcome.record.data["steps"] if row["name"] == name)
        for name in ("stitched", "1 distil")
    )
    # ten classes: far above chance before any training of the whole
    assert start["scores"]["accuracy"]["value"] > 0.3
    assert end["scores"]["accuracy"]["value"] >= start["scores"]["accuracy"]["value"] - 0.05


def test_the_front_has_measured_points_and_the_report_shows_them(done):
    folder, outcome = done
    front = outcome.record.data["blockwise"]["front"]
    assert len(front["predicted"]) >= 2
    damages = [point["value"] for point in front["predicted"]]
    assert damages == sorted(damages, reverse=True)
    measured = [p for p in front["measured"] if p["role"] == "before"]
    assert len(measured) == len(front["predicted"])
    page = (folder / "out" / "report.html").read_text()
    assert "The student, block by block" in page
    assert "predicted and measured" in page


def test_another_budget_is_solved_without_training(done):
    folder, _ = done
    before = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("weights.safetensors")}
    outcome = run(folder / "blocks.yaml", out=folder / "out", budget={"parameters": "45%"})
    assert outcome.record.data == {"format": 1}
    costs = outcome.data["choice"]["costs"]
    assert costs["parameters"] <= outcome.data["limits"]["parameters"]
    assert outcome.data["measured"]["parameters"] == costs["parameters"]
    after = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("weights.safetensors")}
    assert before == after
    choices = list((folder / "out" / "blockwise" / "choices").glob("*/choice.json"))
    assert [read_json(p)["limits"] for p in choices] == [outcome.data["limits"]]


def test_a_finished_run_is_not_done_again(done, capsys):
    folder, outcome = done
    again = run(folder / "blocks.yaml", out=folder / "out")
    assert again.record.data["created"] == outcome.record.data["created"]


def test_the_command_prints_choice_and_result(done, capsys):
    folder, _ = done
    recipe, out = str(folder / "blocks.yaml"), str(folder / "out")
    assert command(["blockwise", recipe, "--out", out, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "candidate" in shown
    assert "student" in shown
    code = command(["blockwise", recipe, "--out", out, "--quiet", "--json", "--budget",
                    "parameters=50%,flops=60%"])  # fmt: skip
    assert code == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert set(told["limits"]) == {"parameters", "flops"}


@pytest.mark.parametrize(
    ("budget", "law"),
    [
        ({"parameters": "10"}, "no combination"),
        ({"size": "10"}, "a budget is of parameters, bytes"),
        ({"parameters": "-3"}, "positive number or a share"),
    ],
)
def test_a_budget_that_cannot_be_met_is_explained(done, budget, law):
    folder, _ = done
    with pytest.raises(ModelError, match=law):
        run(folder / "blocks.yaml", out=folder / "out", budget=budget)


def test_bad_recipes_are_refused_before_anything_runs(tmp_path):
    path = tmp_path / "r.yaml"
    text = RECIPE.replace("    keep: {parameters: 0.6}\n", "")
    path.write_text(text.replace("[narrower, low_rank", "[narower, low_rank"))
    with pytest.raises(RecipeError, match="narrower"):
        run(path, out=tmp_path / "out")
    path.write_text(text)
    with pytest.raises(RecipeError, match="chosen for a budget"):
        run(path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_cannot_be_deployed_is_found_before_its_blocks_are_taught(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one, self.two = torch.nn.Linear(64, 64), torch.nn.Linear(64, 10)\n"
        "    def forward(self, rows):\n"
        "        rows = rows.flatten(1)\n"
        "        return self.two(self.one(rows) if rows.sum() > 0 else rows)\n"
    )
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("{kind: mlp, hidden: [40, 40, 40, 40]}",
                                   '{kind: custom, target: "own.py:Own"}'))  # fmt: skip
    with pytest.raises(ExportError, match="the teacher has no ONNX form, in which"):
        run(path, out=tmp_path / "out")
    assert not (tmp_path / "out" / "blockwise").exists()


def test_run_says_which_command_it_is(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    assert command(["run", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "understudy blockwise" in capsys.readouterr().err


def test_rounds_go_on_until_the_target_or_their_end(tmp_path):
    path = tmp_path / "rounds.yaml"
    text = RECIPE.replace("along: parameters", "target: 1.0\n    rounds: 2\n    along: flops")
    text = text.replace("parameters: 0.6}", "parameters: 0.35}").replace("front: 4", "front: 0")
    path.write_text(text)
    outcome = run(path, out=tmp_path / "out")
    rounds = outcome.record.data["blockwise"]["rounds"]
    assert 1 <= len(rounds) <= 2
    assert sum(one["kept"] for one in rounds) == 1
    assert rounds[-1]["next"][-1].startswith("stop:")
    if len(rounds) == 2:
        assert rounds[0]["after"] < rounds[0]["target"]
        assert rounds[0]["next"]


@pytest.mark.slow
def test_a_teacher_of_texts_is_put_together_too(tmp_path):
    lines = ["text,label"]
    for number in range(160):
        word, other = ("fine", "dull")[number % 2], ("film", "story", "town")[number % 3]
        lines.append(f"the {other} of {number} is {word},{('good', 'bad')[number % 2]}")
    (tmp_path / "texts.csv").write_text("\n".join(lines))
    text = RECIPE.replace("{kind: mlp, hidden: [40, 40, 40, 40]}",
                          "{kind: text_transformer, dim: 16, depth: 3, heads: 2}")  # fmt: skip
    text += """data:
  source: {kind: text, path: texts.csv, text: text, target: label}
  tokenizer: {size: 60, max_length: 16}
"""
    path = tmp_path / "r.yaml"
    path.write_text(text.replace("rows: 600, epochs: 3", "rows: 100, epochs: 1"))
    record = run(path, out=tmp_path / "out", settings=["student.blockwise.front=0"]).record.data
    assert record["models"]["student"]["parameters"] < record["models"]["teacher"]["parameters"]
    assert set(record["blockwise"]["stitched"]["choice"]["labels"].values()) != {"keep"}


@pytest.mark.slow
def test_every_option_of_the_section_goes_through(tmp_path):
    text = RECIPE.replace("local: {rows: 600, epochs: 3}",
                          "local: {rows: 200, epochs: 1, inputs: recompute, noise: 0.1}\n"
                          "    scores: {pairs: 2, by: metric_drop, rows: 100}\n"
                          "    features: 0.5")  # fmt: skip
    path = tmp_path / "r.yaml"
    path.write_text(text.replace("front: 4", "front: 2").replace("epochs: 8", "epochs: 2"))
    record = run(path, out=tmp_path / "out").record.data
    told = record["blockwise"]
    # Both are drops of accuracy: shares, not distances.
    assert -1 <= told["stitched"]["damage"] <= 1
    assert told["front"]["measure"] == "drop of the metric"
    (step,) = record["recipe"]["steps"]
    terms = [term["kind"] for term in step["objective"]]
    assert terms == ["hard_label", "soft_target", "hint"]
    assert read_json(tmp_path / "out" / "blockwise" / "scores" / "scores.json")["corrections"]
