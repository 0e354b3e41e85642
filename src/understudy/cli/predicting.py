"""`understudy predict`: an exported student answers for new rows, or goes on with a text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli.arguments import Json
from understudy.errors import RunError


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an ONNX file.", metavar="RUN")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Rows: .npy, .npz:key, .csv, .txt, images, folders."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text to answer for. Repeatable.")
    ] = None,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", help="The second text of a pair, one per --text.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="A text that a language model goes on with.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="With --prompt: the most new tokens.", min=1)
    ] = 128,
    temperature: Annotated[
        float,
        typer.Option("--temperature", help="With --prompt: 0 takes the likeliest token.", min=0),
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Draw from so many of the likeliest.", min=1)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Draw from the likeliest of this mass.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn.", min=0)] = 0,
    int8: Annotated[bool, typer.Option("--int8", help="Answer with the int8 file.")] = False,
    as_json: Json = False,
) -> None:
    """Answer for new rows with an exported student, or go on with a text. Loads no torch."""
    if prompt is None:
        if (max_tokens, temperature, top_k, top_p, seed) != (128, 0, None, None, 0):
            raise RunError(
                "`--max-tokens`, `--temperature`, `--top-k`, `--top-p` and `--seed` say how a "
                'text goes on: give one with `--prompt "..."`, or leave them out'
            )
        _answer_rows(run, files or [], text or [], pair or None, int8=int8, as_json=as_json)
        return
    if files or text or pair:
        raise RunError("`--prompt` stands alone: leave files, `--text` and `--pair` out")
    if temperature == 0 and not (top_k is None and top_p is None):
        raise RunError(
            "`--top-k` and `--top-p` say what is drawn from, but nothing is drawn at temperature "
            "0: add `--temperature 1`"
        )
    sampling = _sampling(temperature, top_k, top_p)
    path = _exported(run, "decoder", int8=int8)
    _go_on(path, prompt, most=max_tokens, sampling=sampling, seed=seed, as_json=as_json)


def _exported(run: Path, name: str, *, int8: bool) -> Path:
    """The file of a run, or the one that was named."""
    if run.is_file() and not _onnx(run):
        recipe = run.suffix.lower() in (".yaml", ".yml")
        told = (
            "a recipe: name the folder of its run, by default runs/NAME"
            if recipe
            else ("neither: name one")
        )
        raise RunError(f"RUN must be a run's folder or an ONNX file, but {run} is {told}")
    path = run
    if run.is_dir():
        path = run / "export" / (f"{name}.int8.onnx" if int8 else f"{name}.onnx")
    # Its student is there too, but answers rows of tokens with logits, which are for the report.
    if name == "student" and (run / "export" / "decoder.onnx").is_file():
        raise RunError(
            f'{run} holds a language model: give it a text to go on with, `--prompt "..."`'
        )
    if path.is_file():
        return path
    if name == "decoder" and (run / "export" / "student.onnx").is_file():
        raise RunError(f"{run} holds no language model: give its student rows or `--text`")
    raise RunError(
        f"{run} holds no exported student ({path} is not there): `understudy export RECIPE` "
        "makes one; or name an ONNX file"
    )


def _onnx(file: Path) -> bool:
    """Whether a file is called an ONNX file, or begins as one: with the number of its version."""
    with file.open("rb") as content:
        return file.suffix.lower() == ".onnx" or content.read(1) == b"\x08"


def _sampling(temperature: float, top_k: int | None, top_p: float | None) -> Any:
    from understudy.deployed.sampling import Sampling

    if temperature == 0:
        return None
    try:
        return Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    except ValueError as error:
        raise RunError(str(error)) from error


def _go_on(path: Path, prompt: str, *, most: int, sampling: Any, seed: int, as_json: bool) -> None:
    from understudy.deployed.generating import Decoder

    decoder = Decoder.open(path)
    ids = decoder.coder.encode(prompt)
    told: list[int] = []

    def own() -> Iterator[int]:
        for token in decoder.tokens(ids, most=most, sampling=sampling, seed=seed):
            told.append(token)
            if token not in decoder.stop:
                yield token

    pieces = []
    for piece in decoder.coder.stream(ids, own()):
        pieces.append(piece)
        if not as_json:
            typer.echo(piece, nl=False)
    full = len(ids) + len(told) == decoder.context and told[-1] not in decoder.stop
    if as_json:
        ended = "stop" if told[-1] in decoder.stop else "context" if full else "length"
        line = {"prompt": prompt, "text": "".join(pieces), "tokens": len(told), "ended": ended}
        typer.echo(json.dumps(line))
        return
    typer.echo()
    if full:
        typer.echo(f"the context of {decoder.context} tokens is full", err=True)


def _answer_rows(
    run: Path,
    files: list[Path],
    text: list[str],
    pair: list[str] | None,
    *,
    int8: bool,
    as_json: bool,
) -> None:
    from understudy import deployed
    from understudy.cli.show import rows, write
    from understudy.deployed.word_answers import TASK, file_word_answers

    session = deployed.Deployed.open(_exported(run, "student", int8=int8))
    if bool(files) == bool(text) or (pair and not text):
        raise RunError(
            "`predict` answers for rows in files or for texts, one of the two: "
            'give a file, or `--text "..."`'
        )
    if session.task == TASK:
        if pair:
            raise RunError("these answers are for the words of one text: leave `--pair` out")
        if text:
            answers, names = deployed.word_answers(text, session), text
        else:
            answers, names = file_word_answers(files, session)
    else:
        if text:
            inputs, names = deployed.text_rows(text, session, pairs=pair), text
        else:
            inputs, names = deployed.load_rows(files, session)
        answers = deployed.answers(session.predict(inputs), session)
    if as_json:
        lines = [{"row": n, **a} for n, a in zip(names, answers, strict=True)]
        write("\n".join(json.dumps(line) for line in lines))
    else:
        head = ("row", "answer")
        rows(head, [(n, _answer(a)) for n, a in zip(names, answers, strict=True)])


def _answer(answer: dict[str, Any]) -> str:
    if "words" in answer:
        from understudy.deployed.word_answers import line

        return line(answer)
    if "class" in answer:
        return f"{answer['class']} ({answer['probability']:.3f})"
    if "vector" in answer:
        first = ", ".join(f"{value:.4f}" for value in answer["vector"][:4])
        return f"{len(answer['vector'])} numbers: {first}, ... (all with --json)"
    return ", ".join(f"{name} = {value:.6g}" for name, value in answer["values"].items())
