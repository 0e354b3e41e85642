import math
from copy import deepcopy
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax

from understudy.blockwise.form import replaced
from understudy.blockwise.partition import partition
from understudy.blockwise.recombine import Correction, Menu, choose
from understudy.blockwise.scores import damages, options_of, pair_corrections
from understudy.blockwise.trials import Trials
from understudy.blockwise.words import Block, Candidate, Damage, Partition, Rest
from understudy.errors import DataError, ModelError
from understudy.models.resnet import CifarResNet, ResidualBlock

WIDTH = 6


class Layer(nn.Module):
    """A residual layer that says when it runs."""

    runs: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.linear, self.drop = name, nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5)

    def forward(self, stream):
        Layer.runs.append(self.name)
        # In place, as many networks do: what was kept must not be written over.
        return stream.add_(torch.tanh(self.drop(self.linear(stream))))


class Chain(nn.Module):
    def __init__(self, layers: int = 4, answers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(4, WIDTH)
        self.layers = nn.ModuleList(Layer(f"l{place}") for place in range(layers))
        self.head = nn.Linear(WIDTH, answers)

    def forward(self, rows):
        stream = self.stem(rows)
        for layer in self.layers:
            stream = layer(stream)
        return {"logits": self.head(stream)}


def block(name, *paths, takes=(WIDTH,), gives=(WIDTH,), **others):
    return Block(name=name, paths=paths, takes=takes, gives=gives, parameters=0, flops=0, **others)


def partition_of(*blocks):
    return Partition(blocks=blocks, rest=Rest(parameters=0, flops=0))


@pytest.fixture
def chain():
    torch.manual_seed(0)
    return Chain()


@pytest.fixture
def parts():
    names = [(f"b{n}", f"layers.{n}") for n in range(4)]
    return partition_of(*(block(name, path) for name, path in names))


@pytest.fixture
def rows():
    return torch.randn(10, 4, generator=torch.Generator().manual_seed(1))


def modules():
    torch.manual_seed(2)
    return {
        "b2": {"narrow": nn.Sequential(nn.Linear(WIDTH, 2), nn.Linear(2, WIDTH))},
        "b0": {"skip": nn.Identity(), "linear": nn.Linear(WIDTH, WIDTH)},
        "b3": {"linear": nn.Linear(WIDTH, WIDTH)},
    }


def answers(network, rows):
    with torch.no_grad():
        made = deepcopy(network).eval()(rows)
    return made["logits"] if isinstance(made, dict) else made


def divergence(answer, truth):
    one, other = log_softmax(answer.double(), -1), log_softmax(truth.double(), -1)
    return float(kl_div(one, other, log_target=True, reduction="batchmean"))


def test_damage_is_that_of_whole_passes_of_the_stitched_network(chain, parts, rows):
    labels = torch.arange(10) % 3
    found = damages(chain, parts, modules(), rows, labels, output="logits", batch_size=4)
    assert [(d.block, d.candidate) for d in found] == [
        ("b0", "skip"),
        ("b0", "linear"),
        ("b2", "narrow"),
        ("b3", "linear"),
    ]
    truth = answers(chain, rows)
    right = (truth.argmax(1) == labels).float().mean()
    for damage in found:
        module = modules()[damage.block][damage.candidate]
        answer = answers(replaced(chain, parts, {damage.block: module}), rows)
        assert damage.kl == pytest.approx(divergence(answer, truth), rel=1e-4)
        drop = right - (answer.argmax(1) == labels).float().mean()
        assert damage.metric_drop == pytest.approx(float(drop), abs=1e-6)
    assert min(damage.kl for damage in found) > 1e-3


def test_a_resnet_is_scored_as_whole_passes_are():
    torch.manual_seed(0)
    network = CifarResNet(channels=3, width=5, depth=8, base=4)
    rows = torch.randn(6, 3, 8, 8)
    paths = [name for name, part in network.named_modules() if isinstance(part, ResidualBlock)]
    parts = partition_of(*(block(f"b{n}", path) for n, path in enumerate(paths)))
    modules = {
        "b0": {"skip": nn.Identity()},
        "b2": {"own": deepcopy(network.get_submodule(paths[2]))},
    }
    trials = Trials(network, parts, rows)
    assert trials.reuses
    skip, own = damages(network, parts, modules, rows, output="logits", batch_size=4)
    answer = answers(replaced(network, parts, {"b0": nn.Identity()}), rows)
    assert skip.kl == pytest.approx(divergence(answer, answers(network, rows)), rel=1e-3)
    assert (own.kl, own.metric_drop) == (0, 0)


def test_the_same_block_does_no_damage(chain, parts, rows):
    same = {name: {"keep": deepcopy(chain.layers[n])} for n, name in enumerate(("b0", "b1"))}
    for damage in damages(chain, parts, same, rows, output="logits"):
        assert (damage.kl, damage.metric_drop) == (0, 0)


def test_what_stands_before_a_block_runs_once_per_portion(chain, parts, rows):
    many = {"b2": {f"c{n}": nn.Linear(WIDTH, WIDTH) for n in range(5)}}
    Layer.runs.clear()
    damages(chain, parts, many, rows, output="logits", batch_size=5)
    # Two portions; before them, two rows are tried in the network and in its copy.
    assert Layer.runs.count("l0") == Layer.runs.count("l1") == 2 + 2
    assert Layer.runs.count("l2") == 2 + 2
    assert Layer.runs.count("l3") == 2 + 2 + 5 * 2


def test_the_memory_is_kept_and_does_not_change_the_result(chain, parts, rows):
    per_row = 4 * WIDTH * 4
    assert Trials(chain, parts, rows, memory=per_row * 3).batch_size == 3
    tight = Trials(chain, parts, rows, memory=per_row)
    assert (tight.reuses, tight.batch_size) == (False, 64)
    wanted = damages(chain, parts, modules(), rows, output="logits")
    for memory in (per_row * 3, 0):
        found = damages(chain, parts, modules(), rows, output="logits", memory=memory)
        assert [d.kl for d in found] == pytest.approx([d.kl for d in wanted], rel=1e-5)


def test_a_network_that_reads_more_than_the_stream_is_scored_by_whole_passes(rows):
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, stream, bias=None):
            return self.linear(stream), stream.mean(1, keepdim=True)

    class Carried(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Linear(4, WIDTH), Pair(), Pair()
            self.three = Pair()

        def forward(self, rows):
            stream, bias = self.one(self.stem(rows))
            stream, more = self.two(stream, bias)
            more = 0 if more is None else more
            stream, _ = self.three(stream + (0 if bias is None else bias) + more)
            return stream

    torch.manual_seed(0)
    network = Carried()
    parts = partition_of(*(block(n, n, items=(2,)) for n in ("one", "two", "three")))
    trials = Trials(network, parts, rows)
    assert not trials.reuses
    (found,) = damages(network, parts, {"three": {"skip": nn.Identity()}}, rows, output="logits")
    whole = replaced(network, parts, {"three": nn.Identity()})
    assert found.kl == pytest.approx(
        divergence(answers_first(whole, rows), answers_first(network, rows)), rel=1e-4
    )


def answers_first(network, rows):
    with torch.no_grad():
        return network(rows)


def test_the_network_and_the_candidates_are_left_as_found(chain, parts, rows):
    chain.train()
    chain.layers[1].eval()
    candidates = modules()
    candidates["b2"]["narrow"].train()
    before = deepcopy(chain.state_dict())
    given = rows.clone()
    state = torch.get_rng_state()
    damages(chain, parts, candidates, rows, output="logits")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(rows, given)
    assert [part.training for part in chain.layers] == [True, False, True, True]
    assert candidates["b2"]["narrow"].training
    assert all(torch.equal(before[name], value) for name, value in chain.state_dict().items())
    assert not any(part._forward_hooks for part in chain.modules())


def test_a_candidate_that_is_not_finite_has_infinite_damage_and_the_others_go_on(
    chain, parts, rows
):
    bad = nn.Linear(WIDTH, WIDTH)
    nn.init.constant_(bad.weight, math.nan)
    both = {"b1": {"bad": bad, "good": nn.Identity()}}
    labels = torch.zeros(10, dtype=torch.int64)
    worst, fine = damages(chain, parts, both, rows, labels, output="logits")
    assert (worst.kl, worst.metric_drop) == (math.inf, math.inf)
    (alone,) = damages(chain, parts, {"b1": {"good": nn.Identity()}}, rows, labels, output="logits")
    assert fine == alone
    with pytest.raises(ModelError, match="original's answers"):
        damages(chain, parts, both, rows * math.nan, output="logits")


def test_without_labels_the_metric_is_agreement_with_the_network(chain, parts, rows):
    turned = {"b3": {"turned": nn.Linear(WIDTH, WIDTH)}}
    (found,) = damages(chain, parts, turned, rows, output="logits", batch_size=4)
    answer = answers(replaced(chain, parts, {"b3": turned["b3"]["turned"]}), rows)
    other = (answer.argmax(1) != answers(chain, rows).argmax(1)).float().mean()
    assert 0 < float(other) < 1
    assert found.metric_drop == pytest.approx(float(other))


def test_unlabelled_rows_do_not_count(chain, parts, rows):
    labels = torch.arange(10) % 3
    skip = {"b0": {"skip": nn.Identity()}}
    (few,) = damages(chain, parts, skip, rows[:6], labels[:6], output="logits")
    labels[6:] = -1
    (all_rows,) = damages(chain, parts, skip, rows, labels, output="logits")
    assert all_rows.metric_drop == pytest.approx(few.metric_drop)


@pytest.mark.parametrize("answers_per_row", [1, 3])
def test_of_values_it_is_the_squared_error_and_r2(parts, rows, answers_per_row):
    torch.manual_seed(0)
    network = Chain(answers=answers_per_row)
    truth = answers(network, rows).double()
    labels = truth + torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    skip = {"b1": {"skip": nn.Identity()}}
    answer = answers(replaced(network, parts, {"b1": nn.Identity()}), rows).double()

    def r2(outputs):
        left = (outputs - labels).square().sum(0) / (labels - labels.mean(0)).square().sum(0)
        return float(1 - left.mean())

    (found,) = damages(network, parts, skip, rows, labels, output="values", batch_size=3)
    spread = (truth - truth.mean(0)).square().sum()
    assert found.kl == pytest.approx(float((answer - truth).square().sum() / spread), rel=1e-4)
    assert found.metric_drop == pytest.approx(r2(truth) - r2(answer), rel=1e-4)
    (bare,) = damages(network, parts, skip, rows, output="embedding", batch_size=3)
    assert bare.kl == bare.metric_drop == pytest.approx(found.kl, rel=1e-6)


def test_numbers_that_are_unlabelled_do_not_count(parts, rows):
    torch.manual_seed(0)
    network = Chain(answers=1)
    labels = torch.linspace(0, 1, 10)
    skip = {"b1": {"skip": nn.Identity()}}
    (few,) = damages(network, parts, skip, rows[:7], labels[:7], output="values")
    labels[7:] = math.nan
    (found,) = damages(network, parts, skip, rows, labels, output="values")
    assert found.metric_drop == pytest.approx(few.metric_drop, rel=1e-3)


def test_a_metric_of_ones_own_sees_all_answers(chain, parts, rows):
    seen = []

    def metric(outputs):
        seen.append(tuple(outputs.shape))
        return float(outputs.square().mean())

    (found,) = damages(
        chain, parts, {"b1": {"skip": nn.Identity()}}, rows, output="embedding", metric=metric,
        batch_size=3,
    )  # fmt: skip
    assert set(seen) == {(10, 3)}
    answer = answers(replaced(chain, parts, {"b1": nn.Identity()}), rows)
    drop = answers(chain, rows).square().mean() - answer.square().mean()
    assert found.metric_drop == pytest.approx(float(drop), rel=1e-4)


def test_pairs_are_what_both_do_beyond_the_sum(chain, parts, rows):
    candidates = modules()
    singles = damages(chain, parts, candidates, rows, output="logits")
    found = pair_corrections(chain, parts, candidates, rows, singles, output="logits")
    # Of the neighbours only b2 and b3 both have candidates.
    assert [(c.one, c.other) for c in found] == [(("b2", "narrow"), ("b3", "linear"))]
    more = pair_corrections(
        chain, parts, candidates, rows, singles, output="logits", pairs=[("b0", "b2")], batch_size=4
    )
    assert [c.one[1] for c in more] == ["skip", "linear"]
    alone = {(d.block, d.candidate): d.kl for d in singles}
    for correction in (*found, *more):
        assert isinstance(correction, Correction)
        spots = (correction.one, correction.other)
        both = {name: candidates[name][label] for name, label in spots}
        together = divergence(answers(replaced(chain, parts, both), rows), answers(chain, rows))
        wanted = together - sum(alone[spot] for spot in spots)
        assert correction.value == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_of_a_candidate_that_failed_no_pair_is_tried(chain, parts, rows):
    two = {"b0": {"skip": nn.Identity()}, "b1": {"skip": nn.Identity()}}
    singles = [
        Damage(block="b0", candidate="skip", kl=math.inf, metric_drop=0.0),
        Damage(block="b1", candidate="skip", kl=0.1, metric_drop=0.0),
    ]
    assert pair_corrections(chain, parts, two, rows, singles, output="logits") == ()
    with pytest.raises(ModelError, match="`skip` of block `b0` has no damage"):
        pair_corrections(chain, parts, two, rows, singles[1:], output="logits")


def test_an_encoder_with_masks_is_scored_as_whole_passes_are():
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(20, 8)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)
            )

        def forward(self, ids):
            hidden = self.words(ids)
            for layer in self.layers:
                hidden = layer(hidden, src_key_padding_mask=ids == 0)
            return hidden[:, 0]

    torch.manual_seed(0)
    network = Encoder()
    ids = torch.randint(1, 20, (6, 5))
    ids[::2, 3:] = 0
    parts = partition(network, ids, measure=False)
    assert Trials(network, parts, ids).reuses
    last = parts.blocks[-1].name
    skip = {last: {"skip": Passing()}}
    (found,) = damages(network, parts, skip, ids, output="embedding", batch_size=4)
    network.eval()
    truth = answers_first(network, ids).double()
    answer = answers_first(replaced(network, parts, {last: Passing()}), ids).double()
    spread = (truth - truth.mean(0)).square().sum()
    assert found.kl == pytest.approx(float((answer - truth).square().sum() / spread), rel=1e-3)


class Passing(nn.Module):
    def forward(self, stream, *args, **kwargs):
        return stream


@pytest.mark.parametrize(
    ("changed", "law"),
    [
        ({"modules": {"b9": {"skip": nn.Identity()}}}, "no block `b9`"),
        ({"modules": {"b1": {"wide": nn.Linear(3, 3)}}}, "`wide` of block `b1`"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "3 for 10 rows"),
        ({"labels": torch.full((10,), -1)}, "no row has a label"),
        ({"labels": torch.zeros(10), "output": "embedding"}, "give a `metric`"),
        ({"labels": torch.zeros(10), "output": "values"}, "must vary"),
        ({"labels": torch.rand(10, 2), "output": "values"}, "labels of 2 numbers"),
        ({"rows": torch.zeros(1, 4)}, "two rows or more"),
    ],
)
def test_what_does_not_fit_is_refused(chain, parts, rows, changed, law):
    given = {"modules": {"b1": {"skip": nn.Identity()}}, "rows": rows, "labels": None}
    given |= {"output": "logits"} | changed
    output = given.pop("output")
    with pytest.raises((ModelError, DataError), match=law):
        damages(chain, parts, **given, output=output)


def test_scores_become_options_of_a_menu(chain, parts, rows):
    def candidate(label, ms):
        return Candidate(kind=label, label=label, parameters=10, bytes=40, ms=ms, flops=20)

    several = {"b0": [candidate("keep", 2.0), candidate("skip", 0.0), candidate("bad", 1.0)]}
    several["b1"] = [candidate("keep", 2.0), candidate("shared", 1.0)]
    found = [
        Damage(block=block, candidate=label, kl=kl, metric_drop=-kl)
        for block, label, kl in (
            ("b0", "keep", 0.0),
            ("b0", "skip", 0.5),
            ("b1", "keep", 0.0),
            ("b1", "shared", 0.1),
        )
    ]
    needs = {("b1", "shared"): [("b0", "keep")]}
    options = options_of(several, found, memory={("b0", "keep"): 7}, requires=needs)
    assert [option.label for option in options["b0"]] == ["keep", "skip"]
    keep = {"parameters": 10, "bytes": 40, "flops": 20, "ms": 2.0}
    assert options["b0"][0].costs == keep | {"memory": 7}
    assert options["b1"][0].costs == keep
    assert choose(Menu(options=options), {"ms": 3.0}).labels == {"b0": "keep", "b1": "shared"}
    assert [o.damage for o in options_of(several, found, by="metric_drop")["b0"]] == [0.0, -0.5]
