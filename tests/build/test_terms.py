"""Terms from their entries, with what they learn."""

import pytest
import torch

from understudy import build
from understudy.build import Matched
from understudy.errors import ModelError
from understudy.features.adapters import ADAPTERS
from understudy.losses import Hint, Standardized
from understudy.objective import Pair
from understudy.recipe import Schedule, Source, TermEntry

MAPS = Matched(pairs=(("s", "t"),), student=((2, 4, 4),), teacher=((3, 4, 4),))
KNOWN = {"ids": torch.arange(6), "labels": torch.tensor([0, 1, 0, 1, 0, 1]), "answers": 3}


def entries_of(*entries):
    return [TermEntry.model_validate(entry) for entry in entries]


def made(*entries, matched=None, known=KNOWN, seed=0):
    found = entries_of(*entries)
    matched = matched or [MAPS if build.reads_layers(entry) else None for entry in found]
    plain = build.terms(found, Source(), matched=matched)
    return build.with_adapters(found, plain, matched=matched, known=known, seed=seed)


HINT = {"kind": "hint"}


def test_kinds_that_stand_several_times_are_numbered():
    terms = made(HINT, {"kind": "soft_target"}, HINT, HINT, {"kind": "soft_target"})
    assert [t.name for t in terms] == ["hint", "soft_target", "hint#2", "hint#3", "soft_target#2"]


def test_a_term_on_layers_has_its_pairs_and_wants_the_teachers():
    (term,) = made(HINT)
    assert isinstance(term.loss, Hint)
    assert term.pairs == (Pair(student="s", teacher="t"),)
    assert term.wants == ("t",)
    assert term.adapter_kind == "match"


@pytest.mark.parametrize(("weight", "expected"), [
    ("auto", "auto"), (3, 3.0), ({"start": 4, "end": 1}, Schedule(start=4, end=1)),
])  # fmt: skip
def test_weights_are_numbers_schedules_or_auto(weight, expected):
    assert made({**HINT, "weight": weight})[0].weight == expected


def test_constants_reach_the_loss_and_a_scheduled_temperature_the_term():
    (hint,) = made({**HINT, "form": "sum"})
    assert hint.loss.form == "sum"
    (soft,) = made({"kind": "soft_target", "temperature": {"start": 4, "end": 1}})
    assert soft.temperature == Schedule(start=4, end=1)


def test_standardize_wraps_another_term_and_keeps_what_that_one_needs():
    (term,) = made({"kind": "standardize", "weight": 9.0, "of": {"kind": "dkd", "alpha": 2.0}})
    assert isinstance(term.loss, Standardized)
    assert (term.name, term.weight, term.also) == ("standardize", 9.0, ("labels",))
    (related,) = made({"kind": "standardize", "of": {"kind": "dist"}})
    assert related.related


def test_learning_from_labels_is_plain_and_distilling_without_a_teacher_is_not():
    terms = made({"kind": "hard_label"}, {"kind": "teacher_free"}, {"kind": "soft_target"}, HINT)
    assert [t.plain for t in terms] == [True, False, False, False]


# --- adapters ------------------------------------------------------------------------------------


def test_an_adapter_starts_from_its_seed_and_leaves_the_global_one():
    state = torch.get_rng_state()
    one, again, other = (made(HINT, seed=seed)[0].adapter.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_chosen_adapter_replaces_the_usual_one():
    (term,) = made({**HINT, "adapter": {"kind": "match", "projector": "attention"}})
    usual = made(HINT)[0]
    assert term.adapter.state_dict().keys() != usual.adapter.state_dict().keys()
    (term,) = made({**HINT, "adapter": {"kind": "flat"}}, matched=[Matched(
        pairs=(("s", "t"),), student=((3, 4, 4),), teacher=((3, 4, 4),))])  # fmt: skip
    assert isinstance(term.adapter, ADAPTERS["flat"])
    assert term.adapter_kind == "flat"


def test_a_loss_has_its_own_settings_of_an_adapter_and_the_recipe_the_last_word():
    settings = {"student_heads": 2, "teacher_heads": 2, "fused": True}
    found = Matched(pairs=(("s", "t"),), student=((5, 12),), teacher=((5, 12),), settings=settings)
    (term,) = made({"kind": "minilm"}, matched=[found])
    assert (term.adapter.give, term.adapter.student_heads) == ("qkv", 2)
    own = {"kind": "heads", "student_heads": 4, "teacher_heads": 4, "give": "qkv"}
    (term,) = made({"kind": "minilm", "adapter": own}, matched=[found])
    assert (term.adapter.student_heads, term.adapter.teacher_heads) == (4, 4)


def test_a_memory_knows_the_training_rows():
    (term,) = made({"kind": "crd", "adapter": {"kind": "contrast", "negatives": 2, "width": 4}})
    assert term.adapter.student_bank.shape == (6, 4)
    assert torch.equal(term.adapter.ids, KNOWN["ids"])


def test_a_memory_without_ids_is_refused_with_how_to_give_them():
    with pytest.raises(ModelError, match=r"`crd` remembers every training row.*labels, ids"):
        made({"kind": "crd"}, known={"answers": 3})


def test_an_adapter_without_layers_stands_between_the_answers():
    (term,) = made({"kind": "ctkd", "adapter": {"kind": "temperature", "span": 10.0}})
    assert term.pairs == ()
    assert term.adapter.span == 10.0


def test_margins_become_tensors():
    found = Matched(
        pairs=MAPS.pairs, student=MAPS.student, teacher=MAPS.teacher,
        settings={"margins": [[-0.1, -0.2, -0.3]]},
    )  # fmt: skip
    (term,) = made({"kind": "overhaul"}, matched=[found])
    torch.testing.assert_close(term.adapter.margin0, torch.tensor([-0.1, -0.2, -0.3]))


@pytest.mark.parametrize(("entry", "student", "teacher", "told"), [
    (HINT, (5,), (3, 4, 4), r"`hint`: .*\[5\].*\[3, 4, 4\].*projector: attention"),
    ({**HINT, "adapter": {"kind": "match", "projector": "conv"}}, (7, 8), (7, 8), "maps only"),
    ({"kind": "vid"}, (5, 8), (3, 4, 4), r"`vid`: .*\[5, 8\].*\[3, 4, 4\]"),
    ({"kind": "factor_transfer"}, (8,), (8,), r"`factor_transfer`: .*\[8\].*convolutional layers"),
    ({"kind": "review"}, (5, 8), (5, 8), r"`review`: .*\[5, 8\].*take the adapter `match`"),
    ({"kind": "nst"}, (8,), (3, 4, 4), r"`nst`: .*\[8\].*\[3, 4, 4\]"),
    ({"kind": "minilm", "adapter": {"kind": "heads", "student_heads": 3, "teacher_heads": 2}},
     (5, 12), (5, 16), r"`minilm`: "),
])  # fmt: skip
def test_layers_that_nothing_can_bridge_are_told_with_both_shapes_and_the_remedy(
    entry, student, teacher, told
):
    found = Matched(pairs=(("s", "t"),), student=(student,), teacher=(teacher,))
    with pytest.raises(ModelError, match=told):
        made(entry, matched=[found])
