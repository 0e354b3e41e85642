"""Adapters between phases: who goes on with what, who begins anew, and who must not begin."""

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.features.factors import Factors
from understudy.features.matching import Match
from understudy.features.paraphrase import Paraphrase
from understudy.features.temperature import Temperature
from understudy.losses import CTKD, FactorTransfer, Hint, Paraphraser, SoftTargetKL
from understudy.objective import Objective, Pair, Term
from understudy.pipeline.carrying import carry, keep
from understudy.tasks import Classification

TASK = Classification(classes=("a", "b", "c"))
MAPS = [(2, 4, 4)], [(6, 4, 4)]


def layered(name, loss, adapter, kind, **changes):
    return Term(name=name, loss=loss, reads="features", needs=("features",), adapter=adapter,
                adapter_kind=kind, pairs=(Pair(student="s", teacher="t"),), **changes)  # fmt: skip


def hint(name="hint", shapes=MAPS):
    return layered(name, Hint(), Match(*shapes), "match")


def factors(**options):
    return layered("factor_transfer", FactorTransfer(), Factors(*MAPS, **options), "factors")


def paraphraser():
    adapter = Paraphrase(*MAPS)
    return layered("paraphraser", Paraphraser(), adapter, "paraphrase", teaches=False)


def joined(*terms):
    return Objective(terms, task=TASK, offers=frozenset({"logits", "t"}))


@pytest.fixture
def kept(tmp_path):
    """Keep what these terms have learned, as the next phase's folder."""

    def write(*terms):
        folder = tmp_path / f"phase-{len(list(tmp_path.iterdir())) + 1}"
        folder.mkdir()
        keep(joined(*terms), folder)
        return folder

    return write


def equal(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_an_adapter_goes_on_with_what_one_of_its_kind_has_learned(kept):
    first, second = hint(), hint()
    assert not equal(first.adapter, second.adapter)
    carry(joined(second), [kept(first)])
    assert equal(first.adapter, second.adapter)


def test_the_latest_phase_counts(kept):
    first, second, third = hint(), hint(), hint()
    plain = Term(name="soft_target", loss=SoftTargetKL(), reads="logits", needs=("logits",))
    carry(joined(third), [kept(first), kept(second), kept(plain)])
    assert equal(second.adapter, third.adapter)


def test_several_of_one_kind_go_on_with_their_own(kept):
    first = [hint(), hint("hint#2"), hint("hint#3")]
    second = [hint(), hint("hint#2"), hint("hint#3")]
    carry(joined(*second), [kept(*first)])
    for one, other in zip(first, second, strict=True):
        assert equal(one.adapter, other.adapter)


def test_on_layers_of_another_shape_it_begins_anew(kept):
    second = hint(shapes=([(2, 4, 4)], [(5, 4, 4)]))
    before = {k: v.clone() for k, v in second.adapter.state_dict().items()}
    carry(joined(second), [kept(hint())])
    assert all(torch.equal(v, second.adapter.state_dict()[k]) for k, v in before.items())


def test_another_kind_and_no_earlier_phase_leave_it_alone(kept):
    term = Term(name="ctkd", loss=CTKD(), reads="logits", needs=("logits",),
                adapter=Temperature([(3,)], [(3,)]), adapter_kind="temperature")  # fmt: skip
    for folders in ([], [kept(hint())]):
        carry(joined(term), folders)
        assert float(term.adapter.theta.detach()) == 1.0


def test_what_learns_nothing_leaves_no_file(kept):
    folder = kept(layered("bare", Hint(), nn.Identity(), "flat"))
    assert not list(folder.iterdir())


def test_the_paraphraser_is_taken_over_and_frozen(kept):
    first, second = paraphraser(), factors()
    carry(joined(second), [kept(first), kept(hint())])
    assert equal(first.adapter.paraphrasers, second.adapter.paraphrasers)
    assert not any(p.requires_grad for p in second.adapter.paraphrasers.parameters())
    assert bool(second.adapter.pretrained)


def test_factors_without_one_are_refused_with_the_phase_to_add(kept):
    for folders in ([], [kept(hint())]):
        with pytest.raises(ModelError, match=r"`factor_transfer`.*`kind: paraphraser` on the same"):
            carry(joined(factors()), folders)


def test_factors_at_another_rate_are_refused(kept):
    with pytest.raises(ModelError, match="the same layers and rate"):
        carry(joined(factors(rate=0.9)), [kept(paraphraser())])


def test_factors_of_a_second_student_phase_follow_the_paraphraser_too(kept):
    first, second, third = paraphraser(), factors(), factors()
    folders = [kept(first)]
    carry(joined(second), folders)
    folders.append(kept(second))
    carry(joined(third), folders)
    assert equal(first.adapter.paraphrasers, third.adapter.paraphrasers)
    assert bool(third.adapter.pretrained)
