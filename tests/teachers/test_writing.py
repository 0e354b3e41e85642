"""Texts that a teacher writes: a function of seed and number, resumable, and what it says."""

import json
from dataclasses import replace

import pytest
import torch

from understudy.data.documents import COMPLETION, completions, documents
from understudy.data.language_tokens import read_coder, train_coder
from understudy.deployed.sampling import Sampling
from understudy.errors import DataError
from understudy.models import GPT
from understudy.teachers.writing import Commission, write_texts

PLAIN = ["to be or not to be, that is the question", "the rest is silence"]


@pytest.fixture(scope="module")
def coder():
    return train_coder(PLAIN * 3, size=270)


@pytest.fixture
def teacher(coder):
    torch.manual_seed(4)
    return GPT(vocabulary=coder.vocabulary, context=24, end=coder.end, dim=16, depth=1, heads=2)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


ASKED = Commission(count=10, most=6, prompts=("to be", "the rest", "or"), portion=4, seed=3)


def test_every_text_goes_on_from_its_prompt_and_the_same_order_gives_the_same_file(
    coder, teacher, tmp_path
):
    teacher.train()
    path = write_texts(teacher, coder, ASKED, tmp_path / "a.jsonl")
    assert teacher.training
    found = lines(path)
    assert [one["id"] for one in found] == list(range(10))
    assert [one["prompt"] for one in found[:4]] == ["to be", "the rest", "or", "to be"]
    assert {one["seed"] for one in found} == {3}
    assert len({one["completion"] for one in found}) > 6
    state = torch.get_rng_state()
    again = write_texts(teacher, coder, ASKED, tmp_path / "b.jsonl")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.read_bytes() == path.read_bytes()
    other = write_texts(teacher, coder, replace(ASKED, seed=4), tmp_path / "c.jsonl")
    assert [one["completion"] for one in lines(other)] != [one["completion"] for one in found]


@pytest.mark.parametrize("left", [0.35, 0.8, 0.999])
def test_a_file_that_was_left_in_the_middle_goes_on_as_if_nothing_had_happened(
    coder, teacher, tmp_path, left
):
    path = write_texts(teacher, coder, ASKED, tmp_path / "a.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    write_texts(teacher, coder, ASKED, path)
    assert path.read_bytes() == whole
    # A finished one is left alone, a longer one goes on, a shorter one is there already.
    write_texts(teacher, coder, replace(ASKED, count=7), path)
    assert path.read_bytes() == whole
    write_texts(teacher, coder, replace(ASKED, count=13), path)
    assert path.read_bytes().startswith(whole)
    assert len(lines(path)) == 13


def test_another_teacher_or_order_may_not_go_on_in_the_same_file(coder, teacher, tmp_path):
    path = write_texts(teacher, coder, ASKED, tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="its most, seed were another: remove it"):
        write_texts(teacher, coder, replace(ASKED, most=5, seed=1), path)
    with torch.no_grad():
        teacher.norm.weight.add_(0.1)
    with pytest.raises(DataError, match="its teacher was another"):
        write_texts(teacher, coder, ASKED, path)


@pytest.mark.parametrize(
    ("name", "value"), [("context", 20), ("stop", ()), ("end", None), ("begin", 5)]
)
def test_the_same_weights_with_other_settings_do_not_take_these_texts(
    coder, teacher, tmp_path, name, value
):
    path = write_texts(teacher, coder, ASKED, tmp_path / "a.jsonl")
    about = json.loads((tmp_path / "a.jsonl.about.json").read_text())
    wanted = {"context": 24, "stop": [coder.end], "begin": None, "end": coder.end}
    assert {key: about[key] for key in wanted} == wanted
    setattr(teacher, name, value)
    with pytest.raises(DataError, match=f"its {name} was another: remove it"):
        write_texts(teacher, coder, ASKED, path)
    # A file of which it was not written down.
    del about[name]
    (tmp_path / "a.jsonl.about.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=f"does not say with which {name}: remove both"):
        write_texts(teacher, coder, ASKED, path)


def test_the_likeliest_text_is_the_models_own(coder, teacher, tmp_path):
    asked = Commission(count=2, most=5, prompts=("to be", "the rest"), sampling=None)
    for one in lines(write_texts(teacher, coder, asked, tmp_path / "a.jsonl")):
        tokens = coder.prompt(one["prompt"])
        for _ in range(5):
            with torch.no_grad():
                tokens.append(int(teacher.eval()(torch.tensor([tokens]))[0, -1].argmax()))
        assert one["prompt"] + one["completion"] == coder.decode(tokens)
        assert not one["ended"]


def test_the_file_is_a_source_of_rows_with_and_without_prompts(coder, teacher, tmp_path):
    path = write_texts(teacher, coder, ASKED, tmp_path / "a.jsonl")
    rows = completions(path=str(path))
    assert rows.texts[1] == (lines(path)[1]["prompt"], lines(path)[1]["completion"])
    assert len(documents(path=str(path), column=COMPLETION)) == 10


def test_what_cannot_be_written_is_refused(coder, teacher, tmp_path):
    for wrong, law in (
        ({"count": 0}, "`count >= 1`"),
        ({"most": 0}, "`most >= 1`"),
        ({"sampling": None}, "same every time, but 10 texts are asked for from 3 different"),
    ):
        with pytest.raises(ValueError, match=law):
            replace(ASKED, **wrong)
    path = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match="begins with the token that begins a text"):
        write_texts(teacher, coder, replace(ASKED, prompts=()), path)
    with pytest.raises(DataError, match="one is empty"):
        write_texts(teacher, coder, replace(ASKED, prompts=(" ", "b")), path)
    with pytest.raises(DataError, match="a prompt must have 1 to 23 tokens"):
        write_texts(teacher, coder, replace(ASKED, prompts=("to be or not " * 40,)), path)
    with pytest.raises(DataError, match="causal language model, but Linear is none"):
        write_texts(torch.nn.Linear(2, 2), coder, ASKED, path)


@pytest.mark.data
def test_a_real_model_writes_stories_from_nothing(shared_data, tmp_path):
    hf = pytest.importorskip("understudy.teachers.hf_causal")
    folder = shared_data / "stories260k"
    model, coder = hf.load_hf_causal(folder), read_coder(folder)
    path = write_texts(
        model, coder, Commission(count=3, most=40, sampling=Sampling(top_p=0.9)),
        tmp_path / "a.jsonl",
    )  # fmt: skip
    found = lines(path)
    assert len({one["completion"] for one in found}) == 3
    assert all(one["completion"].isascii() and len(one["completion"]) > 40 for one in found)
    likely = Commission(count=1, most=40, sampling=None)
    (one,) = lines(write_texts(model, coder, likely, tmp_path / "b.jsonl"))
    assert one["completion"].startswith("Once upon a time, there was a little girl named Lily.")
