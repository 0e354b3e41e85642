"""The catalogue of losses: complete, callable as it says, and not to be changed while running."""

import dataclasses
import doctest
import importlib
import inspect

import pytest
import torch

from understudy import losses
from understudy.losses import CATALOGUE, Row

KINDS = sorted(CATALOGUE)


def test_these_are_the_kinds():
    assert KINDS == ["hard_label", "hard_value", "logit_mse", "soft_target", "soft_value"]


def test_neither_the_table_nor_a_row_can_be_changed():
    with pytest.raises(TypeError):
        CATALOGUE["mine"] = CATALOGUE["soft_target"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOGUE["soft_target"].labels = True


def test_every_exported_module_has_exactly_one_row():
    exported = {
        value
        for value in vars(losses).values()
        if inspect.isclass(value) and issubclass(value, torch.nn.Module)
    }
    assert exported == {row.loss for row in CATALOGUE.values()}
    assert len(exported) == len(CATALOGUE)


def test_everything_listed_for_export_is_there():
    assert all(hasattr(losses, name) for name in losses.__all__)
    assert losses.__all__ == sorted(losses.__all__, key=lambda n: (not n.isupper(), n))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_filled_in(kind):
    row = CATALOGUE[kind]
    texts = [f.name for f in dataclasses.fields(Row) if f.type is str and f.name != "adapter"]
    assert all(getattr(row, name) for name in texts)
    assert row.authors.source
    assert row.tasks
    assert row.reads in {"logits", "values"}
    assert row.loss.__module__ == f"understudy.losses.{row.family}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_learns_from_labels_or_from_the_teacher_but_not_from_nothing(kind):
    row = CATALOGUE[kind]
    assert row.labels != bool(row.needs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_constant_is_a_keyword_with_a_default_and_a_type(kind):
    for parameter in inspect.signature(CATALOGUE[kind].loss).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_called_with_what_it_reads_and_then_its_target(kind):
    row = CATALOGUE[kind]
    student = torch.zeros(3, 4)
    classes = row.labels and row.reads == "logits"
    target = torch.tensor([0, 1, -1]) if classes else torch.ones(3, 4)
    assert row.loss()(student, target).shape == (3,)


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_listed_outcomes_or_says_why_it_cannot(kind):
    row = CATALOGUE[kind]
    reads_them = callable(getattr(row.loss, "outcomes", None))
    assert reads_them == (row.whole is None and not row.labels)
    assert row.whole is None or len(row.whole) > 20


@pytest.mark.parametrize("name", ["logits", "sparse", "values"])
def test_the_examples_in_the_manual_run(name):
    module = importlib.import_module(f"understudy.losses.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
