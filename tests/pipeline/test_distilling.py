"""`distill` with somebody's own modules and loaders."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import understudy
from understudy.contracts import Batch
from understudy.deployed import Deployed
from understudy.engine import BATCHES
from understudy.errors import DataError, ModelError, RecipeError
from understudy.pipeline.own_loaders import Loader, to_batch
from understudy.recipe import Optimizer, Training

QUICK = Training(epochs=2, optimizer=Optimizer(learning_rate=0.01))


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    rows, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    parts = (slice(0, 700), slice(700, 800), slice(800, 1797))
    return [
        DataLoader(TensorDataset(rows[p], labels[p]), batch_size=64, shuffle=i == 0)
        for i, p in enumerate(parts)
    ]


@pytest.fixture(scope="module")
def teacher(digits):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(15):
        for rows, labels in digits[0]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(rows), labels).backward()
            optimizer.step()
    return module


def make():
    return nn.Linear(64, 10)


class Normed(nn.Module):
    """Batch norm over rows alone, which a single row breaks."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, rows):
        return self.head(self.body(rows))


def test_a_last_batch_of_one_row_is_left_out_of_training_and_of_nothing_else(digits, teacher):
    rows = digits[0].dataset[:129]
    ids = torch.arange(129)
    loader = DataLoader(TensorDataset(*rows, ids), batch_size=64, shuffle=True)
    batches = Loader(loader, trains=True)
    assert [len(batch) for batch in batches] == [64, 64]
    assert len(batches) == 2
    assert [len(batch) for batch in batches.every()] == [64, 64, 1]
    for other in (DataLoader(TensorDataset(*rows), batch_size=1), [loader.dataset[:1]] * 3):
        assert len(list(Loader(other, trains=True))) == len(other)
    result = understudy.distill(
        teacher, Normed, loader, loader, test_loader=loader,
        # A bank with a place for every row, whichever is left out.
        objective=[{"kind": "hard_label"},
                   {"kind": "crd", "layers": {"student": "body", "teacher": "1"}}],
        training=QUICK, seeds=1,
    )  # fmt: skip
    assert result.verdict.rows == 129


def test_it_trains_students_and_controls_and_judges_them(teacher, digits, tmp_path):
    result = understudy.distill(
        teacher, make, digits[0], digits[1], test_loader=digits[2],
        objective=[{"kind": "hard_label", "weight": 0.1},
                   {"kind": "soft_target", "weight": 0.9, "temperature": 4}],
        training=QUICK, seeds=3, out=tmp_path,
    )  # fmt: skip
    assert set(result.students) == set(result.controls) == {0, 1, 2}
    assert result.verdict.seeds == 3
    assert result.verdict.rows == 997
    assert result.scores["teacher"]["accuracy"]["value"] > 0.85
    assert 0.5 < result.scores["student"]["accuracy"]["value"] < 1
    assert "agreement" in result.scores["student"]
    rows, _ = next(iter(digits[2]))
    answer = Deployed.open(result.onnx).predict(rows.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(answer, result.student(rows).numpy(), atol=1e-4)


def test_student_and_control_see_the_same_rows_in_the_same_order(teacher, digits):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 10)
            self.rows = []
            seen.append(self.rows)

        def forward(self, rows):
            if self.training:
                self.rows.append(rows[:, 20:30].sum().item())
            return self.inner(rows)

    understudy.distill(teacher, Spy, digits[0], training=QUICK, seeds=1)
    trained = [rows for rows in seen if rows]
    assert len(trained) == 2
    # The student's terms are looked at on the first batches before it is trained.
    assert trained[0][BATCHES:] == trained[1]
    assert trained[0][:BATCHES]


def test_without_test_rows_nothing_is_proved(teacher, digits):
    result = understudy.distill(teacher, make, digits[0], digits[1], training=QUICK, seeds=1)
    assert result.verdict.word == "UNDECIDED"
    assert not result.scores


@pytest.mark.parametrize("labelled", [0, 1])
def test_loaders_without_a_label_have_no_control(teacher, digits, labelled):
    rows, labels = digits[0].dataset[:]
    hidden = torch.full_like(labels, -1)
    # The only row with a label stands far behind the batches that are looked at first.
    hidden[len(hidden) - labelled :] = labels[len(hidden) - labelled :]
    loader = DataLoader(TensorDataset(rows, hidden), batch_size=20)
    assert len(loader) > BATCHES + 1
    result = understudy.distill(
        teacher, make, loader, test_loader=digits[2], training=QUICK, seeds=3
    )
    assert bool(result.controls) == bool(labelled)
    if not labelled:
        assert result.verdict.word == "UNDECIDED"
        assert "no control" in result.notes[0] or "label" in result.notes[0]


@pytest.mark.parametrize("known", [0, 50])
def test_validation_rows_without_a_label_are_left_out(teacher, digits, known):
    rows, labels = digits[1].dataset[:]
    hidden = torch.cat([labels[:known], torch.full_like(labels[known:], -1)])
    mixed = DataLoader(TensorDataset(rows, hidden), batch_size=64)
    result = understudy.distill(teacher, make, digits[0], mixed, training=QUICK, seeds=1)
    assert any("no validation row" in note for note in result.notes) == (not known)


def test_a_module_as_student_is_said_to_vary_the_order_only(teacher, digits):
    module = make()
    before = module.weight.clone()
    result = understudy.distill(teacher, module, digits[0], training=QUICK, seeds=2)
    assert "order of rows only" in result.notes[0]
    assert torch.equal(module.weight, before), "what the caller passed in was trained"


def test_any_callable_teaches(digits):
    rows, labels = load_digits(return_X_y=True)
    forest = RandomForestClassifier(20, random_state=0).fit(rows[:700] / 16, labels[:700])

    def ask(batch):
        return np.log(np.clip(forest.predict_proba(batch), 1e-6, 1))

    result = understudy.distill(
        ask, make, digits[0], test_loader=digits[2], training=QUICK, seeds=1
    )
    assert result.scores["teacher"]["accuracy"]["value"] > 0.8


def test_regression_needs_no_word_of_it():
    rows, target = load_diabetes(return_X_y=True)
    rows = torch.tensor(rows * 20, dtype=torch.float32)
    target = torch.tensor((target - 150) / 77, dtype=torch.float32)
    loader = DataLoader(TensorDataset(rows[:300], target[:300]), batch_size=32, shuffle=True)
    test = DataLoader(TensorDataset(rows[300:], target[300:]), batch_size=64)
    result = understudy.distill(
        nn.Linear(10, 1),
        lambda: nn.Linear(10, 1),
        loader,
        test_loader=test,
        training=QUICK,
        seeds=3,
    )
    assert {"r2", "rmse"} <= set(result.scores["student"])


def test_the_teacher_is_left_as_it_is(teacher, digits):
    before = [p.clone() for p in teacher.parameters()]
    understudy.distill(teacher, make, digits[0], training=QUICK, seeds=1)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert all(p.requires_grad for p in teacher.parameters())


def test_what_is_wrong_is_said(teacher, digits):
    with pytest.raises(RecipeError, match="did you mean `soft_target`"):
        understudy.distill(teacher, make, digits[0], objective=[{"kind": "soft_traget"}])
    with pytest.raises(ModelError, match="10 numbers per row"):
        understudy.distill(teacher, lambda: nn.Linear(64, 7), digits[0], training=QUICK, seeds=1)
    with pytest.raises(ModelError, match="must return a torch module"):
        understudy.distill(teacher, lambda: "net", digits[0], training=QUICK, seeds=1)
    with pytest.raises(DataError, match="iterator"):
        understudy.distill(teacher, make, iter(digits[0]))
    with pytest.raises(DataError, match="collate_fn"):
        to_batch("rows")


def test_a_loader_may_give_several_forms():
    rows, labels, ids = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.arange(2)
    batch = Batch(inputs=rows, labels=labels)
    assert to_batch(batch) is batch
    assert to_batch((rows, labels, ids)).ids is ids
    assert to_batch({"inputs": rows, "labels": labels}).labels is labels
    assert to_batch(rows).labels is None
    assert to_batch((rows, torch.zeros(2))).labels.shape == (2, 1)


def test_auto_picks_one_precision_for_all_arms(teacher, digits, monkeypatch):
    from understudy.engine import Picked
    from understudy.pipeline import distilling, precision

    asked, seen, real = [], [], distilling.fit

    def pick(student, objective, rows, training):
        asked.append(len(rows))
        return Picked(precision="bfloat16", rows_per_second={})

    def fit(**named):
        seen.append(named["training"].precision)
        return real(**named)

    monkeypatch.setattr(precision, "pick", pick)
    monkeypatch.setattr(distilling, "fit", fit)
    training = QUICK.model_copy(update={"precision": "auto", "epochs": 1})
    understudy.distill(teacher, make, digits[0], digits[1], training=training, seeds=2)
    assert asked == [64]
    assert seen == ["bfloat16"] * 4
