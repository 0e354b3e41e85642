"""`understudy predict --prompt`: text as it comes, without torch, and what it refuses."""

import json
import subprocess
import sys

import pytest

from deployed.decoder_cases import decoder_file, follows
from understudy.cli.main import run

TABLE = follows(("<s>", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("e", "</s>"), ("ab", "c"))


@pytest.fixture
def folder(tmp_path):
    """A run that holds a language model."""
    (tmp_path / "run" / "export").mkdir(parents=True)
    for name, table in (("decoder", TABLE), ("decoder.int8", follows(("ab", "e"), ("e", "</s>")))):
        decoder_file(tmp_path / "run" / "export" / f"{name}.onnx", table)
    return tmp_path / "run"


def test_it_goes_on_with_a_text_without_torch(folder):
    code = (
        "import sys\n"
        "from understudy.cli.main import run\n"
        f"code = run(['predict', {str(folder)!r}, '--prompt', 'ab', '--max-tokens', '5'])\n"
        "assert not {'torch', 'onnx', 'transformers'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "cabca\n"


def test_how_a_text_ended_is_told(folder, capsys):
    def told(*given):
        assert run(["predict", str(folder), *given, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert told("--prompt", "ab", "--max-tokens", "3") == {
        "prompt": "ab", "text": "cab", "tokens": 3, "ended": "length"
    }  # fmt: skip
    assert told("--prompt", "ab", "--int8")["text"] == "e"
    assert told("--prompt", "e") == {"prompt": "e", "text": "", "tokens": 1, "ended": "stop"}
    assert told("--prompt", "ab")["ended"] == "context"
    drawn = ["--prompt", "a", "--temperature", "9", "--top-k", "5", "--seed"]
    assert told(*drawn, "1") == told(*drawn, "1")
    assert len({told(*drawn, str(seed))["text"] for seed in range(5)}) > 1
    cold = ["--prompt", "ab", "--max-tokens", "3", "--temperature", "1e-320"]
    assert told(*cold)["text"] == "cab"
    assert run(["predict", str(folder / "export" / "decoder.onnx"), "--prompt", "ab"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "cabcabcab\n"
    assert "the context of 12 tokens is full" in shown.err


@pytest.mark.parametrize(
    ("given", "law"),
    [
        (["--prompt", "a", "--text", "b"], "`--prompt` stands alone"),
        (["--prompt", "a", "--top-k", "3"], "nothing is drawn at temperature 0: add"),
        (["--prompt", "a", "--top-p", "0"], "nothing is drawn at temperature 0: add"),
        (["--prompt", "a", "--temperature", "1", "--top-p", "0"], "`0 < top_p <= 1` must hold"),
        (["--prompt", "a", "--temperature", "-1"], "Invalid value for '--temperature'"),
        (["--prompt", "a", "--max-tokens", "0"], "Invalid value for '--max-tokens'"),
        (["--prompt", "ab" * 20], "a prompt must have 1 to 11 tokens"),
        (["--prompt", "a", "--temperature", "nan"], "Invalid value for '--temperature'"),
        (["--text", "b", "--max-tokens", "3"], "say how a text goes on: give one with `--prompt"),
        (["--text", "b"], 'holds a language model: give it a text to go on with, `--prompt "..."`'),
    ],
)
def test_what_is_refused(folder, given, law, capsys):
    assert run(["predict", str(folder), *given]) == 2
    assert law in " ".join(capsys.readouterr().err.split())


def test_a_language_model_is_told_from_its_decoder_though_its_student_is_there(folder, capsys):
    (folder / "export" / "student.onnx").touch()  # as a run leaves it
    assert run(["predict", str(folder), "--text", "a"]) == 2
    assert "holds a language model: give it a text to go on with" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--prompt", "a"], ["--text", "a"], ["t.csv"]])
def test_what_is_neither_a_run_nor_an_onnx_file_is_told_apart(tmp_path, capsys, given):
    for name, law in (
        ("t.yaml", "is a recipe: name the folder of its run, by default runs/NAME"),
        ("weights.bin", "is neither: name one"),
        ("empty", "is neither: name one"),
    ):
        (tmp_path / name).write_text("" if name == "empty" else "name: t")
        assert run(["predict", str(tmp_path / name), *given]) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert "RUN must be a run's folder or an ONNX file, but" in told
        assert law in told
        assert "PROTOBUF" not in told
        assert "Traceback" not in told


def test_an_onnx_file_may_have_any_name(folder, tmp_path, capsys):
    (folder / "export" / "decoder.onnx").rename(tmp_path / "model")
    assert run(["predict", str(tmp_path / "model"), "--prompt", "ab", "--max-tokens", "3"]) == 0
    assert capsys.readouterr().out == "cab\n"


def test_files_that_go_on_with_nothing(tmp_path, capsys):
    bare = decoder_file(tmp_path / "bare.onnx", TABLE, tokenizer=None)
    other = decoder_file(tmp_path / "other.onnx", TABLE, decoder=False)
    plain = decoder_file(tmp_path / "plain.onnx", TABLE, tokenizer={**_plain(), "begin": None})
    for path, prompt, law in (
        (bare, "a", "has no tokenizer"),
        (other, "a", "does not go on with texts"),
        (plain, "", "must have a token to go on from"),
        (tmp_path / "none", "a", "holds no exported student"),
    ):
        assert run(["predict", str(path), "--prompt", prompt]) == 2
        assert law in capsys.readouterr().err
    (tmp_path / "run" / "export").mkdir(parents=True)
    (tmp_path / "run" / "export" / "student.onnx").touch()
    assert run(["predict", str(tmp_path / "run"), "--prompt", "a"]) == 2
    assert "holds no language model: give its student rows" in capsys.readouterr().err


def _plain():
    from deployed.decoder_cases import TOKENIZER

    return TOKENIZER
