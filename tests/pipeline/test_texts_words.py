"""Layers of a teacher with a tokenizer of its own, compared word by word."""

import csv

import pytest
import yaml

from pipeline.encoders import encoder_folder, sentences
from understudy import recipe as recipes
from understudy.errors import ModelError
from understudy.folders import read_json
from understudy.pipeline import run

pytest.importorskip("transformers")

RECIPE = {
    "task": {"kind": "embedding"},
    "data": {
        "source": {"kind": "text", "path": "t.csv", "text": "text"},
        "test": 20,
        "validation": 20,
        "tokenizer": {"size": 60, "max_length": 24},
    },
    "teacher": {"model": {"kind": "sentence_encoder", "folder": "encoder"}},
    "student": {"model": {"kind": "text_transformer", "dim": 8, "depth": 2, "heads": 2}},
    "steps": [
        {
            "objective": [
                {"kind": "embedding_mse", "weight": 8},
                {
                    "kind": "tinybert_hidden",
                    "layers": {"auto": "evenly"},
                    "adapter": {"kind": "words"},
                },
            ],
            "training": {"epochs": 2, "batch_size": 16, "optimizer": {"learning_rate": 0.005}},
        }
    ],
    "evaluate": {"draws": 200, "latency_seconds": 0.01},
    "export": {"int8": False},
    "seeds": 1,
}


@pytest.fixture
def go(tmp_path):
    encoder_folder(tmp_path / "encoder")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in sentences(100))])

    def start(**changes):
        text = yaml.safe_dump(RECIPE | changes)
        recipe, place = recipes.loads(text, name="t.yaml", folder=tmp_path)
        return run(recipe, place=place, out=tmp_path / "run")

    return start


def test_a_student_learns_the_words_of_a_teacher_that_reads_other_tokens(go, tmp_path):
    record = go()
    (note,) = [note for note in record.data["warnings"] if note.startswith("words: ")]
    assert "both tokenizers see 100.00% of the words whole" in note
    found = read_json(next((tmp_path / "run").rglob("terms.json")))
    value = {one["term"]: one["value"] for one in found}["tinybert_hidden"]
    assert value > 0


def test_what_words_cannot_be_had_of_is_refused(go):
    without = [{"kind": "tinybert_hidden", "layers": {"auto": "evenly"}}]
    step = RECIPE["steps"][0]
    with pytest.raises(ModelError, match=r"word by word \(`adapter: \{kind: words\}`\)"):
        go(steps=[step | {"objective": without}])
