"""The paraphraser and the translator."""

import pytest
import torch
from torch import nn

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.factors import Factors


class TestFactors(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Factors,
            student=[(3, 6, 8), (4, 3, 2)],
            teacher=[(6, 3, 4), (5, 3, 2)],
            gives=[(3, 3, 4), (2, 3, 2)],
            frozen=("paraphrasers",),
            normalises=True,
        )


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    return Factors([(3, 4, 6)], [(6, 4, 6)])


@pytest.fixture
def maps():
    return rows_of([(3, 4, 6), (6, 4, 6)], 16, torch.Generator().manual_seed(1))


def learning(adapter):
    return {name.split(".")[0] for name, p in adapter.named_parameters() if p.requires_grad}


def test_three_convolutions_each_way_and_normalisation_in_the_translator_only(adapter):
    def count(kind, module):
        return sum(isinstance(m, kind) for m in module.modules())

    paraphraser, translator = adapter.paraphrasers[0], adapter.translators[0]
    assert count(nn.Conv2d, paraphraser) == 3
    assert count(nn.ConvTranspose2d, paraphraser) == 3
    assert count(nn.BatchNorm2d, paraphraser) == 0
    assert count(nn.Conv2d, translator) == count(nn.BatchNorm2d, translator) == 3


def test_the_reconstruction_is_the_mean_squared_error_of_each_row(adapter, maps):
    again = adapter.paraphrasers[0](maps[1])
    expected = [(a - m).pow(2).mean().item() for a, m in zip(again, maps[1], strict=True)]
    assert adapter.reconstruction([maps[1]]).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_paraphraser_learns_by_reconstruction_alone(adapter, maps):
    optimizer = torch.optim.Adam(adapter.paraphrasers.parameters(), lr=0.01)
    values = []
    for _ in range(60):
        loss = adapter.reconstruction([maps[1]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.9 * values[0]
    assert all(p.grad is None for p in adapter.translators.parameters())


def test_a_frozen_paraphraser_learns_no_more(adapter, maps):
    assert learning(adapter) == {"paraphrasers", "translators"}
    adapter.freeze()
    assert learning(adapter) == {"translators"}
    assert not adapter.reconstruction([maps[1]]).requires_grad


def test_it_is_frozen_again_when_its_state_comes_back(adapter, maps):
    adapter.freeze()
    holder = nn.ModuleDict({"factors": Factors([(3, 4, 6)], [(6, 4, 6)])})
    holder.load_state_dict(nn.ModuleDict({"factors": adapter}).state_dict())
    assert bool(holder["factors"].pretrained)
    assert learning(holder["factors"]) == {"translators"}


def test_a_state_that_was_not_frozen_freezes_nothing(adapter):
    other = Factors([(3, 4, 6)], [(6, 4, 6)])
    other.load_state_dict(adapter.state_dict())
    assert learning(other) == {"paraphrasers", "translators"}


def test_the_teachers_factors_are_the_encoders(adapter, maps):
    made = adapter([maps[0]], [maps[1]], batch_of(maps))
    assert torch.equal(made.teacher[0], adapter.paraphrasers[0].encoder(maps[1]))
    assert not made.teacher[0].requires_grad


@pytest.mark.parametrize("rate", [0.0, -1.0, 0.1, float("nan")])
def test_a_rate_that_leaves_no_channel_is_refused(rate):
    with pytest.raises(ModelError, match="rate"):
        Factors([(3, 4, 6)], [(6, 4, 6)], rate=rate)


@pytest.mark.parametrize(("own", "goal"), [((7, 4), (7, 4)), ((4,), (6, 4, 6))])
def test_only_maps_have_factors(own, goal):
    with pytest.raises(ModelError, match="name convolutional layers"):
        Factors([own], [goal])
