"""The catalogue of losses: complete, callable as it says, and not to be changed while running."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

from understudy import losses
from understudy.features.adapters import ADAPTERS
from understudy.losses import CATALOGUE, Row
from understudy.losses.catalogue.embeddings import EMBEDDINGS
from understudy.losses.catalogue.features import FEATURES
from understudy.losses.catalogue.logits import LOGITS
from understudy.losses.catalogue.relations import RELATIONS
from understudy.losses.catalogue.transformers import TRANSFORMERS
from understudy.losses.catalogue.values import VALUES
from understudy.losses.catalogue.weights import WEIGHTS

KINDS = sorted(CATALOGUE)
# Constraints read no rows.
OF_ROWS = [kind for kind in KINDS if kind not in WEIGHTS]
TABLES = {
    "logits": LOGITS,
    "values": VALUES,
    "features": FEATURES,
    "relations": RELATIONS,
    "transformers": TRANSFORMERS,
    "embeddings": EMBEDDINGS,
    "weights": WEIGHTS,
}
METHODS = [
    "soft_target",
    "logit_mse",
    "reverse_kl",
    "jensen_shannon",
    "skew_kl",
    "dkd",
    "dist",
    "nkd",
    "wsld",
    "ctkd",
    "multi_level",
    "teacher_free",
    "standardize",
    "hint",
    "attention_transfer",
    "nst",
    "fsp",
    "similarity_preserving",
    "factor_transfer",
    "activation_boundary",
    "overhaul",
    "vid",
    "mgd",
    "channel_wise",
    "review",
    "simkd",
    "rkd_distance",
    "rkd_angle",
    "pkt",
    "correlation_congruence",
    "crd",
    "cka",
    "tinybert_hidden",
    "tinybert_attention",
    "minilm",
    "minilm_v2",
    "pkd",
    "cosine",
    "embedding_mse",
    "score_distribution",
    "margin_mse",
    "matryoshka",
]
# Labels, the plain teacher of regression, and what another method stands on.
CONSTRAINTS = ["l2_sp", "norm_ball", "orthogonality"]
OTHERS = ["hard_label", "hard_value", "soft_value", "paraphraser"]


def test_these_are_the_kinds():
    assert len(METHODS) == 42
    assert sorted([*METHODS, *OTHERS, *CONSTRAINTS]) == KINDS


def test_every_kind_stands_in_the_table_of_its_family_and_in_no_other():
    assert sum(len(table) for table in TABLES.values()) == len(CATALOGUE)
    for name, table in TABLES.items():
        assert {row.family for row in table.values()} == {name}


def test_every_loss_and_every_function_has_one_row():
    assert len({row.loss for row in CATALOGUE.values()}) == len(CATALOGUE)
    assert len({row.function for row in CATALOGUE.values()}) == len(CATALOGUE)
    assert all(row.function.__name__ in losses.__all__ for row in CATALOGUE.values())


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
    assert texts
    assert all(getattr(row, name) for name in texts)
    assert row.authors.source
    assert row.tasks
    assert row.family in TABLES
    assert row.reads in {"logits", "values", "features", "embedding", "weights"}
    assert row.function.__module__ == row.loss.__module__
    assert row.adapter in {"", *ADAPTERS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_learns_from_labels_or_from_the_teacher_but_not_from_nothing(kind):
    row = CATALOGUE[kind]
    assert (row.labels != bool(row.needs)) is (kind not in WEIGHTS)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_constraint_reads_weights_alone_and_is_the_controls_too(kind):
    row = CATALOGUE[kind]
    assert row.reads == row.family == "weights"
    assert not any((row.labels, row.needs, row.also, row.adapter, row.related))
    assert row.control
    weights = {"a.weight": torch.ones(3, 4), "b": torch.ones(3)}
    value = row.loss()(weights, {n: 3 * v for n, v in weights.items()})
    assert value.shape == ()
    assert value > 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_constant_is_a_keyword_with_a_default_and_a_type(kind):
    for parameter in inspect.signature(CATALOGUE[kind].loss).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_layers_if_and_only_if_it_needs_features(kind):
    row = CATALOGUE[kind]
    assert (row.layers != "none") == (row.needs == ("features",)) == (row.reads == "features")
    assert set(row.also) <= {"labels"}


MAP, TOKENS, HEADS, VECTOR = (3, 5, 4, 6), (3, 5, 4), (3, 2, 5, 4), (3, 4)
SHAPES = {
    "tinybert_hidden": TOKENS, "pkd": TOKENS, "tinybert_attention": HEADS, "minilm": HEADS,
    "minilm_v2": HEADS, "crd": VECTOR, "correlation_congruence": VECTOR,
    "rkd_distance": VECTOR, "rkd_angle": VECTOR, "pkt": VECTOR, "cka": VECTOR,
}  # fmt: skip
BANK = torch.nn.functional.normalize(torch.ones(3, 6, 4), dim=2)
VALUES_OF = {
    "vid": {"log_scale": torch.zeros(5)},
    "ctkd": {"temperature": torch.tensor(4.0)},
    "overhaul": {"margins": [torch.full((5,), -0.5), torch.full((5,), -0.5)]},
    "crd": {
        "student_bank": BANK, "teacher_bank": BANK, "student_constant": torch.tensor(10.0),
        "teacher_constant": torch.tensor(10.0), "rows": torch.tensor(9.0),
        "temperature": torch.tensor(0.07),
    },
}  # fmt: skip
# Relations of queries, keys and values: three of each side.
COUNT = {"minilm": 3, "minilm_v2": 3}


@pytest.mark.parametrize("kind", OF_ROWS)
def test_it_is_called_with_what_it_reads_and_then_its_target(kind):
    row = CATALOGUE[kind]
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES.get(kind, MAP if row.layers != "none" else VECTOR)
    student, target = torch.randn(2, *shape, generator=generator)
    if kind == "crd":
        student, target = (torch.nn.functional.normalize(s, dim=1) for s in (student, target))
    extra = dict(VALUES_OF.get(kind, {}))
    classes = torch.tensor([0, 1, 3])
    if row.labels and row.reads == "logits":
        target = classes
    if row.also:
        extra["labels"] = classes
    if row.layers == "all":
        count = COUNT.get(kind, 2)
        student, target = [student] * count, [target] * count
    values = row.loss()(student, target, **extra)
    assert values.shape == (3,)
    assert values.isfinite().all()
    assert (values != 0).any()


@pytest.mark.parametrize("kind", [k for k in KINDS if CATALOGUE[k].related])
def test_a_value_of_a_relation_depends_on_the_other_rows(kind):
    row = CATALOGUE[kind]
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES.get(kind, MAP if row.layers != "none" else VECTOR)
    student, target = torch.randn(2, *shape, generator=generator)
    whole = row.loss()(student, target)
    part = row.loss()(student[:2], target[:2])
    assert not torch.allclose(whole[:2], part)


@pytest.mark.parametrize("kind", OF_ROWS)
def test_it_reads_listed_outcomes_or_says_why_it_cannot(kind):
    row = CATALOGUE[kind]
    reads_them = callable(getattr(row.loss, "outcomes", None))
    assert reads_them == (row.whole is None and not row.labels)
    assert row.whole is None or len(row.whole) > 20


PUBLIC = sorted({row.loss.__module__ for row in CATALOGUE.values()})
WITHOUT = {"blends", "catalogue", "constants", "labelled", "rows", "shapes", "spatial", "tokens"}


def modules():
    found = pkgutil.iter_modules(losses.__path__, f"{losses.__name__}.")
    return [importlib.import_module(module.name) for module in found]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.split(".")[-1])
def test_the_examples_in_the_manual_run(module):
    result = doctest.testmod(module)
    assert result.failed == 0
    assert bool(result.attempted) == (module.__name__.split(".")[-1] not in WITHOUT)


def test_no_module_with_a_loss_is_without_an_example():
    assert not {name.split(".")[-1] for name in PUBLIC} & WITHOUT
