"""Candidates learn what their block makes of recorded or recomputed inputs, pair by pair."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from understudy.blockwise.form import Piece
from understudy.blockwise.learning import Learning, rate_factor
from understudy.blockwise.local import WEIGHTS, distil_block
from understudy.blockwise.sources import Held
from understudy.blockwise.words import Call
from understudy.errors import DataError

ROWS, HELD = np.arange(0, 48), np.arange(48, 64)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def held(rows=64, noise=0.0):
    """A fixed layer of random weights over random numbers, in the place of a block and its data."""
    torch.manual_seed(0)
    block = Piece([nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)]).eval()
    stream = draws(rows, 6)
    with torch.no_grad():
        gives = block(stream)
    return block, Held(Call(stream=stream, gives=gives + noise * draws(rows, 4, seed=9)))


def fresh(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))


def teach(block, module, source, folder, **settings):
    how = Learning(**{"epochs": 30, "batch_size": 16, "learning_rate": 1e-2, **settings})
    return distil_block(
        block, module, source, rows=ROWS, validation=HELD, folder=folder, learning=how
    )


# --- learning ------------------------------------------------------------------------------------


def test_a_candidate_learns_its_block_and_the_loss_counts_in_variances(tmp_path):
    block, source = held()
    module = fresh()
    told = teach(block, module, source, tmp_path / "pair")
    assert told["loss"] < 0.3 * told["start"]
    assert (told["kept"], told["steps"], told["rows"]) == ("end", 90, 48)
    call = source(HELD)
    variance = source(ROWS).gives.var(dim=0, correction=0)
    with torch.no_grad():
        goal = ((module(call.stream) - call.gives).square() / variance).mean()
    assert math.isclose(told["loss"], float(goal), rel_tol=1e-4)


def test_a_candidate_that_says_the_mean_has_a_loss_of_about_one(tmp_path):
    block, source = held(rows=64)
    module = nn.Linear(6, 4)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.copy_(source(HELD).gives.mean(dim=0))
    told = teach(block, module, source, tmp_path / "pair", epochs=0)
    assert told["steps"] == 0
    assert told["kept"] == "start"
    assert 0.5 < told["loss"] < 1.5


def test_worse_weights_than_at_the_start_are_not_kept(tmp_path):
    block, source = held()
    module = copy.deepcopy(block)
    with torch.no_grad():
        module.parts[2].bias += 0.01
    before = {key: value.clone() for key, value in module.state_dict().items()}
    told = teach(block, module, source, tmp_path / "pair", epochs=1, learning_rate=1.0)
    assert told["kept"] == "start"
    assert told["loss"] == told["start"]
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_the_block_itself_has_nothing_to_learn(tmp_path):
    block, source = held()
    told = teach(block, copy.deepcopy(block), source, tmp_path / "pair")
    assert told["steps"] == 0
    assert told["loss"] < 1e-6


def test_a_run_is_a_function_of_its_seed_and_leaves_the_random_state(tmp_path):
    block, source = held()
    state = torch.get_rng_state()
    first, second, third = (fresh() for _ in range(3))
    torch.set_rng_state(state)
    for module, seed, name in ((first, 0, "a"), (second, 0, "b"), (third, 1, "c")):
        teach(block, module, source, tmp_path / name, epochs=2, noise=0.1, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, third[0].weight)


PADDED = torch.arange(5)[None, :] >= torch.tensor([5, 3] * 32)[:, None]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, stream, src_key_padding_mask=None):
        return self.layer(stream)


def test_hidden_tokens_neither_teach_nor_count(tmp_path):
    torch.manual_seed(0)
    block = Piece([Tokens()])
    stream = draws(64, 5, 6)
    with torch.no_grad():
        gives = block(stream)
    found = []
    for name, filler in (("a", 0.0), ("b", 1e4)):
        shown = torch.where(PADDED[..., None], filler, gives)
        source = Held(Call(stream=stream, kwargs={"src_key_padding_mask": PADDED}, gives=shown))
        torch.manual_seed(1)
        module = Tokens()
        told = teach(block, module, source, tmp_path / name, epochs=3)
        found.append((told["loss"], module.layer.weight))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_noise_is_relative_to_each_feature_and_the_goal_stays_clean(tmp_path):
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, stream):
            seen.append(stream.clone())
            return self.layer(stream)

    block, source = held()
    source.call.stream[:, 0] *= 100
    teach(block, Watched(), source, tmp_path / "a", epochs=1, noise=0.5, batch_size=48)
    (noisy,) = [s for s in seen if len(s) == 48 and not torch.equal(s, source(ROWS).stream)]
    clean = source(ROWS).stream
    # Rows are shuffled: the sums of squares tell how much was added.
    added = noisy.var(dim=0) / clean.var(dim=0)
    assert bool(((added > 1.0) & (added < 1.7)).all())


def test_noise_from_a_student_replaces_rows_by_its_own(tmp_path):
    block, source = held()
    other = Held(replace(source.call, stream=torch.full((64, 6), 7.0)))
    seen = []

    class Watched(nn.Linear):
        def forward(self, stream):
            seen.append(stream)
            return super().forward(stream)

    how = Learning(epochs=1, batch_size=48, noise=0.5)
    distil_block(
        block, Watched(6, 4), source, rows=ROWS, validation=HELD, folder=tmp_path / "a",
        learning=how, student=other,
    )  # fmt: skip
    shares = [float((s == 7.0).all(dim=1).float().mean()) for s in seen if len(s) == 48]
    assert len(shares) == 1
    assert 0.2 < shares[0] < 0.8


# --- what goes wrong -----------------------------------------------------------------------------


class Breaks(nn.Module):
    """Gives NaN, or raises, from its third training step on."""

    def __init__(self, deed):
        super().__init__()
        self.layer, self.deed, self.steps = nn.Linear(6, 4), deed, 0

    def forward(self, stream):
        made = self.layer(stream)
        if torch.is_grad_enabled():
            self.steps += 1
            if self.steps == 3:
                made = self.deed(made)
        return made


def fall(made):
    raise RuntimeError("it fell over")


@pytest.mark.parametrize(("deed", "reason"), [
    (lambda made: made * float("nan"), "in step 3 of 90 it is nan"),
    (fall, "RuntimeError: it fell over"),
    (lambda made: made[:, :2], r"ValueError: it gives [16, 2] instead of [16, 4]"),
])  # fmt: skip
def test_a_candidate_that_breaks_is_a_result_and_is_not_tried_again(tmp_path, deed, reason):
    block, source = held()
    torch.manual_seed(0)
    module = Breaks(deed)
    told = teach(block, module, source, tmp_path / "pair")
    assert reason in told["failed"]
    assert told["steps"] == 2
    assert not (tmp_path / "pair" / WEIGHTS).exists()
    torch.manual_seed(0)
    again = Breaks(deed)
    assert teach(block, again, source, tmp_path / "pair") == told
    assert again.steps == 0


def test_a_block_that_says_the_same_of_all_rows_teaches_nothing(tmp_path):
    block, source = held()
    same = Held(replace(source.call, gives=torch.ones(64, 4)))
    told = teach(block, fresh(), same, tmp_path / "pair")
    assert "the same numbers for all rows" in told["failed"]


@pytest.mark.parametrize(("rows", "validation", "law"), [
    (np.arange(1), HELD, "two rows to learn from and a held-out one"),
    (ROWS, np.arange(0), "two rows to learn from and a held-out one"),
    (ROWS, np.arange(47, 60), r"held-out rows may not be learned from, but 1 are in both"),
    (ROWS, np.arange(60, 70), "rows must be from 0 to 63, but got 69"),
])  # fmt: skip
def test_rows_that_make_no_sense_are_refused(tmp_path, rows, validation, law):
    block, source = held()
    with pytest.raises(DataError, match=law):
        distil_block(
            block, fresh(), source, rows=rows, validation=validation, folder=tmp_path / "a"
        )


@pytest.mark.parametrize("settings", [
    {"epochs": -1}, {"batch_size": 0}, {"learning_rate": 0}, {"noise": 1.5}, {"clip": -1},
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="must hold, but got"):
        Learning(**settings)


def test_the_learning_rate_rises_and_falls():
    rates = [rate_factor(step, 100) for step in range(100)]
    assert max(rates) == rates[5] == 1.0
    assert rates[:6] == sorted(rates[:6])
    assert rates[5:] == sorted(rates[5:], reverse=True)


# --- going on ------------------------------------------------------------------------------------


def test_a_finished_pair_is_read_and_a_changed_one_is_done_again(tmp_path):
    block, source = held()
    module = fresh()
    told = teach(block, module, source, tmp_path / "pair", epochs=2)
    again = fresh()
    assert teach(block, again, source, tmp_path / "pair", epochs=2) == told
    assert torch.equal(again[0].weight, module[0].weight)
    assert teach(block, fresh(), source, tmp_path / "pair", epochs=3)["steps"] == 9
    _, other = held(noise=0.1)
    assert teach(block, fresh(), other, tmp_path / "pair", epochs=3)["loss"] != told["loss"]


def test_a_pair_that_was_interrupted_is_done_again_as_if_it_had_not(tmp_path):
    class Stop(BaseException):
        pass

    def stop(made):
        raise Stop

    block, source = held()
    torch.manual_seed(0)
    with pytest.raises(Stop):
        teach(block, Breaks(stop), source, tmp_path / "pair")
    assert not (tmp_path / "pair").exists()
    told = []
    for name in ("pair", "other"):
        torch.manual_seed(0)
        module = Breaks(lambda made: made)
        told.append((teach(block, module, source, tmp_path / name)["loss"], module.layer.weight))
    assert told[0][0] == told[1][0]
    assert torch.equal(told[0][1], told[1][1])


def test_batch_statistics_are_learned_and_nothing_is_dropped_out(tmp_path):
    block, source = held()
    modes = []

    class Watched(nn.Dropout):
        def forward(self, stream):
            modes.append(self.training)
            return super().forward(stream)

    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Watched(0.5), nn.Linear(8, 4))
    teach(block, module, source, tmp_path / "pair", epochs=2, batch_size=47)
    assert not any(modes)
    # A last batch of one row is left out.
    assert int(module[1].num_batches_tracked) == 2
    assert not module[1].training
