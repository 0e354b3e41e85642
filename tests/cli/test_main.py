"""The command line as a person meets it: exit codes, messages, what is imported."""

import json
import subprocess
import sys

import pytest

from understudy.cli.main import run as command

SMALL = """
task: {kind: classification}
data: {source: {kind: digits}, test: 0.3, rows: 300}
teacher: {model: {kind: mlp, hidden: [32]}, training: {epochs: 2}}
student: {model: {kind: mlp, hidden: [4]}}
steps: [{training: {epochs: 2}}]
evaluate: {draws: 200, latency_seconds: 0.02}
seeds: 1
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.yaml").write_text(SMALL)
    assert (
        command(["run", str(folder / "small.yaml"), "--out", str(folder / "run"), "--quiet"]) == 0
    )
    return folder / "run"


def test_help_imports_neither_torch_nor_numpy():
    code = (
        "import sys\n"
        "from understudy.cli.main import run\n"
        "code = run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'lightning', 'pydantic'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, heavy\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_loads_no_torch():
    code = "import understudy, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_explains_itself(capsys):
    assert command(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (
        "demo init check run label evaluate export predict report methods schema".split()  # noqa: SIM905
    ):
        assert f"  {name} " in text
        assert command([name, "--help"]) == 0


def test_the_version_is_printed(capsys):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("understudy ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run"],
        ["run", "there-is-none.yaml"],
        ["demo", "--colour"],
        ["methods", "softtarget"],
    ],
)
def test_a_users_mistake_exits_with_2_and_no_traceback(arguments, capsys):
    assert command(arguments) == 2
    told = capsys.readouterr().err
    assert told
    assert "Traceback" not in told


def test_a_defect_of_ours_exits_with_1_and_says_how_to_report_it(small, monkeypatch, capsys):
    from understudy import build

    monkeypatch.setattr(build, "checked", lambda *_, **__: 1 / 0)
    assert command(["check", str(small)]) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert "please report" in told


def test_a_full_disk_is_the_users_to_mend(small, monkeypatch, capsys):
    import errno

    from understudy import build

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "checked", full)
    assert command(["check", str(small)]) == 2
    assert "make room" in capsys.readouterr().err


def test_check_says_what_would_be_done(small, capsys):
    assert command(["check", str(small)]) == 0
    assert "is fine: 1 seed of student and control, 2 epochs each" in capsys.readouterr().out
    once = ["--set", "steps.0.training.epochs=1", "--set", "seeds=2"]
    assert command(["check", str(small), *once]) == 0
    assert "2 seeds of student and control, 1 epoch each" in capsys.readouterr().out


def test_a_setting_changes_the_recipe(small, capsys):
    assert command(["check", str(small), "--set", "seeds=4", "--set", "steps.0.control=false"]) == 0
    assert "4 seeds of student, without a control" in capsys.readouterr().out
    assert command(["check", str(small), "--set", "seeds=none"]) == 2


def test_init_writes_a_recipe_that_is_fine_and_never_overwrites(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert command(["init", str(path)]) == 0
    assert command(["check", str(path)]) == 0
    schema = json.loads((tmp_path / "understudy.schema.json").read_text())
    assert {"task", "data", "teacher", "student", "steps", "budget"} <= set(schema["properties"])
    before = path.read_text()
    assert command(["init", str(path)]) == 2
    assert path.read_text() == before
    assert "never overwrites" in capsys.readouterr().err


def test_schema_prints_the_kinds_there_are(capsys):
    assert command(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kinds = [
        branch["properties"]["kind"]["const"]
        for branch in printed["$defs"]["StudentSection"]["properties"]["model"]["oneOf"]
    ]
    texts = ["text_static", "text_cnn", "text_bilstm", "text_transformer", "static"]
    others = ["hf_encoder", "hf_classifier", "sentence_encoder", "gpt", "hf_causal", "custom"]
    assert kinds == ["mlp", "convnet", "resnet", "vit", *texts, *others]


def test_json_is_one_object_on_the_last_line(finished, small, capsys):
    assert command(["run", str(small), "--out", str(finished), "--json"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])
    assert summary["primary"] == {"name": "accuracy", "higher_is_better": True}
    assert "nothing to do" in err


def test_the_table_names_every_model_and_the_report(finished, small, capsys):
    assert command(["run", str(small), "--out", str(finished)]) == 0
    text = capsys.readouterr().out
    for part in ("teacher", "student", "control", "student int8", "UNDECIDED", "report.html"):
        assert part in text
    assert "1 seed, " in text


def test_report_draws_again_from_the_record(finished, capsys):
    (finished / "report.html").unlink()
    assert command(["report", str(finished)]) == 0
    assert (finished / "report.html").is_file()
    assert "report.html" in capsys.readouterr().out


def test_seed_moves_the_seeds(small, capsys):
    assert (
        command(["run", str(small), "--out", str(small.parent / "s"), "--seed", "7", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["deployed"]["seed"] == 7


def test_predict_answers_without_torch(finished, tmp_path):
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.save(tmp_path / "rows.npy", digits.images[:5].astype(np.uint8)[..., None])
    code = (
        "import sys\n"
        "from understudy.cli.main import run\n"
        f"code = run(['predict', {str(finished)!r}, {str(tmp_path / 'rows.npy')!r}, '--json'])\n"
        "assert code == 0\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 5
    assert {"row", "class", "probability", "top"} <= set(answers[0])


def test_predict_refuses_rows_of_another_shape(finished, tmp_path, capsys):
    import numpy as np

    np.save(tmp_path / "rows.npy", np.zeros((2, 9, 9, 1), np.uint8))
    assert command(["predict", str(finished), str(tmp_path / "rows.npy")]) == 2
    assert "8, 8, 1" in capsys.readouterr().err


def test_methods_lists_the_catalogue_and_shows_a_page(capsys):
    assert command(["methods", "--json"]) == 0
    kinds = [entry["kind"] for entry in json.loads(capsys.readouterr().out)]
    assert {"hard_label", "soft_target", "logit_mse", "hard_value", "soft_value"} <= set(kinds)
    assert command(["methods", "soft_target"]) == 0
    assert "Hinton" in capsys.readouterr().out
    assert command(["methods"]) == 0


def test_a_missing_library_names_the_extra(small, monkeypatch, capsys):
    from understudy import build

    def absent(*_, **__):
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning.pytorch")

    monkeypatch.setattr(build, "checked", absent)
    assert command(["check", str(small)]) == 2
    assert 'pip install "understudy[train]"' in capsys.readouterr().err
