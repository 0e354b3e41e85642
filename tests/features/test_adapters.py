"""The catalogue of adapters."""

import inspect
from dataclasses import replace

import pytest
import torch
from torch import nn

from conformance.adapter import batch_of, rows_of
from understudy.features.adapters import ADAPTERS
from understudy.losses.catalogue.features import FEATURES
from understudy.losses.catalogue.logits import LOGITS
from understudy.losses.catalogue.relations import RELATIONS
from understudy.losses.catalogue.transformers import TRANSFORMERS

ROWS = {**FEATURES, **LOGITS, **RELATIONS, **TRANSFORMERS}
MAPS = [(4, 8, 12), (6, 4, 6)], [(5, 8, 12), (7, 4, 3)]
TOKENS = [(7, 8), (7, 8)], [(7, 12), (7, 12)]
PARTS = [(7, 12)], [(7, 24)]
LOGIT_ROWS = [(5,)], [(5,)]
OPTIONS = {
    "overhaul": {"margins": [torch.full((5,), -0.4), torch.full((7,), -0.4)]},
    "crd": {"ids": torch.arange(6), "labels": torch.tensor([0, 0, 1, 1, 2, 2]), "negatives": 3},
    "tinybert_attention": {"student_heads": 2, "teacher_heads": 2},
    "minilm": {"student_heads": 2, "teacher_heads": 2, "give": "qkv"},
    "minilm_v2": {"relation_heads": 4, "give": "qkv"},
}
# A memory remembers one pair of layers.
SHAPES = {"crd": ([(4, 8, 12)], [(5, 4, 6)])}
LEARNING = sorted(kind for kind, row in ROWS.items() if row.adapter)


def shapes_of(kind):
    row = ROWS[kind]
    if kind in SHAPES:
        return SHAPES[kind]
    if row.adapter == "heads":
        return PARTS
    return TOKENS if kind in TRANSFORMERS else LOGIT_ROWS if kind in LOGITS else MAPS


@pytest.mark.parametrize("kind", LEARNING)
def test_each_loss_takes_what_its_adapter_gives(kind):
    torch.manual_seed(0)
    row, (student, teacher) = ROWS[kind], shapes_of(kind)
    adapter = ADAPTERS[row.adapter](student, teacher, **OPTIONS.get(kind, {}))
    generator = torch.Generator().manual_seed(1)
    own = [layer.requires_grad_() for layer in rows_of(student, 6, generator)]
    batch = replace(batch_of(own), ids=torch.arange(6), labels=torch.tensor([0, 0, 1, 1, 2, 2]))
    made = adapter(own, rows_of(teacher, 6, generator), batch)
    loss = row.loss()
    if row.layers == "all":
        values = loss(made.student, made.teacher, **made.values)
    else:
        pairs = enumerate(zip(made.student, made.teacher, strict=True))
        values = sum(loss(*p, **{n: v[i] for n, v in made.values.items()}) for i, p in pairs)
    assert values.shape == (6,)
    assert values.isfinite().all()
    values.sum().backward()
    if not row.teaches:
        # It prepares an adapter for a later phase, and reads nothing of the student.
        assert all(layer.grad is None for layer in own)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
        return
    assert all(layer.grad.isfinite().all() for layer in own)
    assert any(layer.grad.abs().sum() > 0 for layer in own)


def test_only_the_paraphraser_teaches_nobody():
    assert [kind for kind, row in ROWS.items() if not row.teaches] == ["paraphraser"]


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_each_is_a_module_of_two_lists_of_shapes_and_options_by_name(kind):
    assert issubclass(ADAPTERS[kind], nn.Module)
    _, student, teacher, *options = inspect.signature(ADAPTERS[kind].__init__).parameters.values()
    assert (student.name, teacher.name) == ("student", "teacher")
    assert all(option.kind is inspect.Parameter.KEYWORD_ONLY for option in options)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_each_says_what_it_does_and_what_it_takes(kind):
    text = inspect.getdoc(ADAPTERS[kind])
    assert "Args:" in text
    assert "Raises:" in text


def test_the_kinds_that_losses_name():
    # No loss needs words: tokenizers do, where there are two.
    assert {row.adapter for row in ROWS.values()} - {""} | {"words"} == set(ADAPTERS)


def test_it_cannot_be_changed():
    with pytest.raises(TypeError):
        ADAPTERS["match"] = nn.Identity
