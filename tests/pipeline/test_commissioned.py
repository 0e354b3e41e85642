"""A student that learns what its teacher writes: sequence-level distillation as a recipe."""

import json

import pytest
import torch

from pipeline.chains import teacher_of
from pipeline.classifier_made import as_on_the_hub
from pipeline.lessons import learned, work_of
from understudy.build.commissions import commission
from understudy.data.language_tokens import read_coder, train_coder
from understudy.errors import DataError, RecipeError
from understudy.folders import read_json
from understudy.models import GPT
from understudy.models.weights import read_weights, save_weights
from understudy.pipeline.commissioned import source_of, texts_of
from understudy.pipeline.distil import trained_module
from understudy.teachers.writing import write_texts

TEXT = ["anna has a hat and ben has none", "ben has a cake", "dora has a ball and a hat"]
SIZES = {"dim": 16, "depth": 2, "heads": 2}
DATA = {
    "task": {"kind": "language_model"},
    "data": {
        "source": {"kind": "teacher_text", "count": 40, "prompts": ["anna has", "ben"],
                   "max_tokens": 8, "seed": 3},
        "test": 0.2, "validation": 0.1, "overlap": "allow",
        "tokenizer": {"file": "tokenizer.json", "max_length": 24},
    },
    "teacher": {"model": {"kind": "gpt", **SIZES}, "weights": "teacher.safetensors"},
    "student": {"from_teacher": [
        {"kind": "depth", "keep": 1, "by": "evenly"}, {"kind": "lora", "rank": 2},
    ]},
    "labels": {"use": "live"},
    "steps": [{
        "objective": [{"kind": "reverse_kl", "weight": 0.5}, {"kind": "hard_label", "weight": 0.5}],
        "training": {"epochs": 2, "batch_size": 8,
                     "on_policy": {"share": 0.5, "max_tokens": 4, "buffer": 16, "refresh": 0.5}},
    }],
    "evaluate": {"draws": 200, "latency_seconds": 0.01},
    "export": {"int8": False},
    "seeds": 1,
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with a tokenizer and a teacher that was trained before."""
    coder = train_coder(TEXT * 3, size=270)
    (tmp_path / "tokenizer.json").write_text(coder.content)
    torch.manual_seed(1)
    teacher = GPT(vocabulary=coder.vocabulary, context=24, end=coder.end, **SIZES)
    save_weights(teacher, tmp_path / "teacher.safetensors")
    return tmp_path


def changed(**source):
    data = json.loads(json.dumps(DATA))
    data["data"]["source"] |= source
    return data


def test_a_cut_student_learns_what_its_teacher_wrote_and_what_it_writes_itself(place):
    pytest.importorskip("peft")
    work, arms = learned(DATA, place)
    path = place / "run" / "texts" / "texts.jsonl"
    texts = [json.loads(line) for line in path.read_text().splitlines()]
    assert [text["id"] for text in texts] == list(range(40))
    assert {text["prompt"] for text in texts} == {"anna has", "ben"}
    # One block of two, and updates alone have moved.
    start, end = (
        read_weights(work.folder / name)
        for name in ("student/seed-0.safetensors", "distil/student-0/weights.safetensors")
    )
    moved = {name for name in end if not torch.equal(start[name], end[name])}
    assert moved == {name for name in end if "lora_" in name}
    student = trained_module(work, arms[0]).network
    assert len(student.blocks) == 1
    assert student.head.weight is student.embedding.weight
    written, plain = (
        read_json(work.folder / "distil" / arm / "phase-1" / "finished.json")
        for arm in ("student-0", "control-0")
    )
    steps = sum(written["on_policy"].values())
    assert steps == written["points"][-1]["step"] > written["on_policy"]["written"] > 0
    assert plain["on_policy"] is None
    assert plain["points"][-1]["step"] == steps
    # A file that was written by hand, with the same order, is the same.
    again = write_texts(
        teacher_of(work).network,
        read_coder(place / "tokenizer.json"),
        commission(work.recipe.data.source, work.place),
        place / "again.jsonl",
    )
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("changes", "law"), [
    ({"task": {"kind": "classification"}}, "`teacher_text` is for a language model"),
    ({"teacher": {"model": {"kind": "gpt", **SIZES}, "training": {}}},
     "written before anything is trained"),
    ({"data": {"source": DATA["data"]["source"]}}, "name its folder or `tokenizer.json`"),
    ({"data": DATA["data"] | {"source": {"kind": "teacher_text", "count": 5, "temperature": None}}},
     "the same every time, but 5 texts"),
    ({"data": DATA["data"] | {"source": {"kind": "teacher_text", "count": 5, "prompts": "no.txt"}}},
     "a file of prompts must exist"),
    ({"data": DATA["data"] | {"source": {"kind": "teacher_text"}}}, "count"),
])  # fmt: skip
def test_what_cannot_be_written_is_told_before_anything_is_done(place, changes, law):
    with pytest.raises(RecipeError, match=law):
        work_of(DATA | changes, place)
    assert not (place / "run" / "texts").exists()


def test_a_file_of_its_own_is_shared_by_runs_and_refused_for_others(place):
    shared = changed(file="shared.jsonl")
    first = texts_of(work_of(shared, place))
    before = (place / "shared.jsonl").read_bytes()
    assert texts_of(work_of(shared, place)) == first
    assert (place / "shared.jsonl").read_bytes() == before
    assert source_of(work_of(shared, place)).parameters["file"] == str(place / "shared.jsonl")
    assert not (place / "run" / "texts").exists()
    # The same weights with less room to write in.
    short = changed(file="shared.jsonl")
    short["data"]["tokenizer"] = short["data"]["tokenizer"] | {"max_length": 20}
    with pytest.raises(DataError, match="its context was another: remove it"):
        texts_of(work_of(short, place))
    with pytest.raises(DataError, match="its seed was another"):
        texts_of(work_of(changed(file="shared.jsonl", seed=4), place))


def test_the_tokenizer_may_be_a_name_of_the_hub(place, monkeypatch):
    pytest.importorskip("transformers")
    import huggingface_hub.constants as constants

    (place / "own").mkdir()
    (place / "tokenizer.json").rename(place / "own" / "tokenizer.json")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hf" / "hub"))
    as_on_the_hub(place / "own", place / "hf", "some/own", "a" * 40)
    told = []
    for number, name in enumerate(("own", "some/own")):
        asked = changed(file=f"{number}.jsonl")
        asked["data"]["tokenizer"] = {"file": name, "max_length": 24}
        texts_of(work_of(asked, place))
        told.append((place / f"{number}.jsonl").read_text())
    assert told[0] == told[1]
