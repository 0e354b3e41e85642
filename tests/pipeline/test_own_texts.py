"""`distill` on texts: strings in, whoever the teacher is, and answers for strings."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.encoder_made import make_encoder
from pipeline.test_texts import BAD, GOOD, reviews
from understudy import distill
from understudy.data import from_texts
from understudy.data.tokenizers import train_tokenizer
from understudy.deployed import Deployed, answers, text_rows
from understudy.errors import DataError, ModelError
from understudy.recipe import Optimizer, Training

TRAINING = Training(epochs=4, batch_size=16, optimizer=Optimizer(learning_rate=0.02))
CLASSES = ["neg", "pos"]
QUESTIONS = [" ".join(GOOD), " ".join(BAD)]


def parts(count=200, seed=0):
    lines = list(reviews(count, seed=seed))
    return [text for text, _ in lines], [mood for _, mood in lines]


def by_words(texts):
    """A teacher that is told a list of strings."""
    assert isinstance(texts, list)
    assert all(isinstance(text, str) for text in texts)
    good = np.array([sum(word in GOOD for word in text.split()) for text in texts])
    bad = np.array([sum(word in BAD for word in text.split()) for text in texts])
    return np.stack([2.0 * bad, 2.0 * good], axis=1)


def hidden(labels, kept):
    return [label if at < kept else "" for at, label in enumerate(labels)]


def test_a_callable_of_strings_teaches_a_student_by_name(tmp_path):
    texts, labels = parts()
    test = parts(80, seed=1)
    found = distill(
        by_words,
        "text_static",
        (texts, hidden(labels, 20)),
        parts(40, seed=2),
        test_loader=test,
        training=TRAINING,
        seeds=3,
        tokenizer={"size": 100, "max_length": 24},
        out=tmp_path,
    )
    assert found.classes == ("neg", "pos")
    assert found.predict(QUESTIONS).argmax(axis=1).tolist() == [1, 0]
    assert found.scores["teacher"]["accuracy"]["value"] > 0.75
    assert found.scores["student"]["agreement"]["value"] > 0.75
    assert set(found.controls) == {0, 1, 2}
    assert found.verdict.effect == pytest.approx(
        found.scores["student"]["accuracy"]["value"] - found.scores["control"]["accuracy"]["value"]
    )
    session = Deployed.open(found.onnx)
    told = session.predict(text_rows(QUESTIONS, session))
    assert np.allclose(told, found.predict(QUESTIONS), atol=1e-4)
    assert [one["class"] for one in answers(told, session)] == ["pos", "neg"]
    weights = [next(found.students[s].parameters()).detach() for s in (0, 1)]
    assert not torch.equal(*weights)
    assert found.tokenizer.length == 24
    for wrong in (["fine", ""], "fine", [3], [("a", "b", "c")]):
        with pytest.raises(DataError, match="each with something to read"):
            found.predict(wrong)


@pytest.fixture
def bert(tmp_path):
    """A small classifier of Hugging Face, as an object, loaded from a folder with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    texts, _ = parts()
    make_encoder(tmp_path / "bert", texts, size=110, positions=40)
    torch.manual_seed(1)
    config = transformers.BertConfig.from_pretrained(tmp_path / "bert", num_labels=2)
    made = transformers.BertForSequenceClassification(config)
    made.save_pretrained(tmp_path / "bert")
    auto = transformers.AutoModelForSequenceClassification
    return auto.from_pretrained(tmp_path / "bert"), tmp_path / "bert"


def test_a_model_of_hugging_face_teaches_with_its_own_tokens_or_the_students(bert):
    model, folder = bert
    texts, labels = parts(60)
    test = parts(30, seed=1)
    short = TRAINING.model_copy(update={"epochs": 1})
    common = {"training": short, "seeds": 1, "control": False, "test_loader": test}
    own = distill(model, {"kind": "text_cnn", "dim": 8}, (texts, labels), **common)
    content = json.loads((folder / "tokenizer.json").read_text())
    assert json.loads(own.tokenizer.content)["model"] == content["model"], "it lies beside it"
    other = distill(
        model,
        lambda: nn.Sequential(nn.EmbeddingBag(60, 8), nn.Linear(8, 2)),
        (texts, labels),
        tokenizer=train_tokenizer(texts, size=60),
        teacher_tokenizer=folder,
        **common,
    )
    assert other.tokenizer.vocabulary <= 60
    # The same teacher on the same texts, whatever the student reads.
    same = {name: found.scores["teacher"]["accuracy"]["value"] for name, found in
            (("own", own), ("other", other))}  # fmt: skip
    assert same["own"] == same["other"]
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", model_max_length=40
    )
    layers = [{"kind": "soft_target"}, {"kind": "hard_label"}]
    again = distill(model, "text_static", texts[:40], tokenizer=fast, classes=CLASSES,
                    objective=layers, training=short, seeds=1)  # fmt: skip
    assert again.controls == {}
    assert "no training row has a hard label" in again.notes[0]
    with pytest.raises(ModelError, match="tokenizer and model must belong together"):
        distill(model, "text_cnn", (texts, labels), tokenizer={"train": "bpe", "size": 400})
    model.config.id2label = {0: "POS", 1: "NEG"}
    with pytest.raises(ModelError, match="stand in the order of the teacher's answers, pos, neg"):
        distill(model, "text_cnn", (texts, labels))
    headless = transformers.AutoModel.from_pretrained(folder)
    with pytest.raises(ModelError, match="needs a head"):
        distill(headless, "text_cnn", (texts, labels))


class Estimator:
    """As scikit-learn's: classes in an order of its own."""

    classes_ = np.array(["pos", "neg"])

    def predict_proba(self, texts):
        shares = np.exp(by_words(texts)[:, ::-1])
        return shares / shares.sum(axis=1, keepdims=True)


class DataSet:
    """A data set with columns, as the library `datasets` gives it."""

    def __init__(self, **columns):
        self._columns, self.column_names, self.features = columns, list(columns), {}

    def __getitem__(self, name):
        return self._columns[name]

    def __iter__(self):
        return iter(zip(*self._columns.values(), strict=True))


def test_an_estimator_teaches_in_the_order_of_the_classes_and_data_sets_are_read():
    texts, labels = parts(120)
    test, right = parts(60, seed=1)
    splits = {
        "train": DataSet(sentence=texts, label=labels),
        "test": DataSet(sentence=test, label=right),
    }
    found = distill(Estimator(), "text_static", splits, training=TRAINING, seeds=1)
    assert found.scores["teacher"]["accuracy"]["value"] > 0.75
    assert found.scores["student"]["accuracy"]["value"] > 0.6
    with pytest.raises(DataError, match="a data set must have a column text or sentence"):
        distill(Estimator(), "text_static", DataSet(body=texts, label=labels))
    with pytest.raises(ModelError, match="knows pos, neg: fit it on the same labels"):
        distill(Estimator(), "text_static", (texts, [label.upper() for label in labels]))


def test_without_labels_there_is_no_control_and_no_claim():
    texts, labels = parts(60)
    short = TRAINING.model_copy(update={"epochs": 1})
    common = {"training": short, "seeds": 1, "classes": CLASSES}
    found = distill(by_words, "text_static", texts, test_loader=(texts, labels), **common)
    assert "no control to compare with" in found.verdict.sentence
    assert found.controls == {}
    assert "accuracy" in found.scores["student"]
    blind = distill(by_words, "text_static", texts, test_loader=texts[:20], **common)
    assert set(blind.scores["student"]) == {"agreement", "divergence"}
    assert "no test row has a label" in blind.verdict.sentence


def test_pairs_and_real_targets_are_texts_too():
    texts, _ = parts(60)
    pairs = list(zip(texts, texts[1:] + texts[:1], strict=True))
    values = [float(len(text.split())) / 7 for text in texts]
    short = TRAINING.model_copy(update={"epochs": 3})

    def lengths(rows):
        return np.array([[len(first.split()) / 7] for first, _ in rows])

    found = distill(lengths, "text_static", (pairs, values), test_loader=(pairs, values),
                    training=short, seeds=1)  # fmt: skip
    assert found.predict(pairs[:3]).shape == (3, 1)
    assert abs(found.predict(pairs).mean() - np.mean(values)) < 1, "in the labels' units"
    assert found.scores["teacher"]["r2"]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"make_student": "text_cn"}, "there is no student `text_cn`; of texts there are: text_"),
        ({"train_loader": (["a b", "c"], ["x"])}, "2 texts and 1 labels"),
        ({"train_loader": (["a b", ""], ["x", "y"])}, "every row must have a text"),
        ({"train_loader": (["a b", "c \ud800"], ["x", "y"])}, "lone surrogates"),
        ({"train_loader": (["a", "b", "c"], ["x", "y", "X "])}, "spelled one way"),
        ({"train_loader": (["1", "2"], ["x", "y"])}, "nothing but numbers"),
        ({"train_loader": ["a b", "c"]}, "give `classes`"),
        ({"test_loader": (["a b"], ["z"])}, "z"),
        ({"test_loader": [torch.zeros(2)]}, "`test_loader` must hold texts"),
        ({"tokenizer": 3}, "`tokenizer` must be a path"),
        ({"tokenizer": {"siz": 3}}, "`tokenizer`, siz"),
        ({"tokenizer": "no/such/tokenizer.json"}, "there is no"),
        ({"teacher": lambda texts: np.zeros((len(texts), 3))}, "must answer with 2 numbers"),
        ({"teacher": lambda texts: texts.shape}, "the teacher cannot answer texts: AttributeErr"),
        ({"teacher": 3}, "a teacher of texts must be a module"),
    ],
)
def test_what_is_no_text_or_does_not_fit_is_refused_in_words(change, law):
    texts, labels = parts(30)
    given = {"teacher": by_words, "make_student": "text_static", "train_loader": (texts, labels)}
    with pytest.raises((DataError, ModelError), match=law):
        distill(**given | {"seeds": 1, "training": TRAINING} | change)


def test_rows_of_texts_are_taken_as_they_are():
    texts, labels = parts(40)
    rows = from_texts(texts, labels)
    found = distill(by_words, "text_static", rows, seeds=1,
                    training=TRAINING.model_copy(update={"epochs": 1}))  # fmt: skip
    assert found.verdict.sentence.startswith("Undecided: no test rows")
