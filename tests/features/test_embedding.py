"""Both sides in one space."""

import pytest
import torch
from torch.nn import functional as F

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.embedding import Embed


class TestEmbed(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Embed,
            student=[(4, 6, 8), (7, 4), (4,)],
            teacher=[(5, 3, 4), (6,), (9, 2)],
            gives=[(128,)] * 3,
            both=True,
        )


def test_it_is_a_linear_layer_on_the_mean():
    own, goal = rows_of([(4, 2, 3), (7, 5)], 2, torch.Generator().manual_seed(0))
    adapter = Embed([(4, 2, 3)], [(7, 5)], width=6)
    made = adapter([own], [goal], batch_of([own]))
    torch.testing.assert_close(made.student[0], adapter.own[0](own.mean(dim=(2, 3))))
    torch.testing.assert_close(made.teacher[0], adapter.goal[0](goal.mean(dim=1)))


def test_normalised_embeddings_have_length_one_and_the_same_direction():
    (own,) = rows_of([(4,)], 3, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    plain = Embed([(4,)], [(4,)], width=6)
    torch.manual_seed(0)
    unit = Embed([(4,)], [(4,)], width=6, normalise=True)
    made = [one([own], [own], batch_of([own])) for one in (plain, unit)]
    torch.testing.assert_close(made[1].student[0].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(made[1].teacher[0].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        F.cosine_similarity(made[0].student[0], made[1].student[0]), torch.ones(3)
    )


def test_a_space_without_axes_is_refused():
    with pytest.raises(ModelError, match="width=0"):
        Embed([(4,)], [(4,)], width=0)
