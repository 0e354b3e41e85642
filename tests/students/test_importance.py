import json
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.errors import ModelError
from understudy.models import CifarResNet
from understudy.students.blocks.branches import answers, scaled
from understudy.students.blocks.chain import resting
from understudy.students.blocks.surgery import skipped
from understudy.students.importance.measuring import Importance, importance
from understudy.students.importance.weighting import distances, scales, without


class Adds(nn.Module):
    """`x + size * f(x)`."""

    def __init__(self, width: int, size: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.size = size

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given + self.size * torch.tanh(self.inner(given))


class Chain(nn.Module):
    """Blocks of different weight on a stream, and a last layer; `[rows, ...]` to `[rows, 5]`."""

    def __init__(self, *sizes: float, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.blocks = nn.ModuleList(Adds(width, size) for size in sizes)
        self.last = nn.Linear(width, 5)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        stream = self.first(given)
        for block in self.blocks:
            stream = block(stream)
        return self.last(stream)


def chain(*sizes: float, seed: int = 0) -> Chain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Chain(*sizes)


def rows(count: int = 120, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


MEASURES = ["importance", "cosine", "skip", "taylor"]


@pytest.mark.parametrize("by", MEASURES)
def test_a_block_that_does_nothing_matters_least_and_a_strong_one_most(by):
    found = importance(chain(0.5, 0.0, 3.0, 0.5), rows(), by=by)
    assert found.by == by
    assert found.order[0] == "blocks.1"
    assert found.order[-1] == "blocks.2"
    assert list(found.scores) == [f"blocks.{i}" for i in range(4)]
    assert found.ranking()["blocks.1"] == 1.0
    assert found.ranking()["blocks.2"] == 4.0


@pytest.mark.parametrize("by", MEASURES)
def test_a_score_is_never_below_that_of_a_less_important_block(by):
    found = importance(chain(0.5, 1.0, 2.0, 0.7), rows(), by=by, coefficients=False)
    ordered = [found.scores[path] for path in found.order]
    assert ordered == sorted(ordered)
    assert all(found.low[p] <= found.scores[p] <= found.high[p] for p in found.order)


@pytest.mark.parametrize("by", MEASURES)
def test_seeds_tell_intervals_and_nothing_else(by):
    network = chain(0.5, 1.0, 2.0)
    one, same, other = (
        importance(network, rows(), by=by, seed=seed, draws=50) for seed in (0, 0, 1)
    )
    assert one == same
    assert one.scores == other.scores
    assert one.low != other.low


@pytest.mark.parametrize("by", MEASURES)
def test_the_network_and_the_random_state_are_left_as_they_were(by):
    torch.manual_seed(0)
    network = CifarResNet(channels=1, width=4, depth=14, base=2).train()
    network.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    importance(network, torch.rand(12, 1, 8, 8), by=by, batch_size=5)
    importance(network, torch.rand(12, 1, 8, 8), by=by, batch_size=5, answers=torch.rand(12, 4))
    assert network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    torch.random.set_rng_state(state)
    first = torch.rand(3)
    torch.random.set_rng_state(state)
    importance(network, torch.zeros(12, 1, 8, 8) + torch.arange(12).reshape(12, 1, 1, 1), by=by)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("by", MEASURES)
def test_chunks_do_not_matter(by):
    network = chain(0.5, 1.0, 2.0)
    small = importance(network, rows(), by=by, batch_size=7, coefficients=False)
    large = importance(network, rows(), by=by, batch_size=500, coefficients=False)
    assert small.order == large.order
    for path in small.order:
        assert small.scores[path] == pytest.approx(large.scores[path], rel=1e-3, abs=1e-5)


def test_of_two_blocks_that_say_the_same_one_may_go_but_not_both():
    network = chain(1.0, 1.0, 0.3)
    with torch.no_grad():
        # Both read a part of the stream that nobody writes to, and write the same elsewhere.
        for block in network.blocks:
            block.inner.weight.zero_()
            block.inner.bias.zero_()
        network.first.weight[4:] = 0
        network.first.bias[4:] = 0
        for number in (0, 1):
            network.blocks[number].inner.weight[4 + number, 0] = 4.0
        network.blocks[2].inner.weight[7, 1] = 4.0
        network.last.weight[:, 4:] *= 5
        network.last.weight[:, 5] = network.last.weight[:, 4]
    found = importance(network, rows(300), coefficients=False)
    assert found.order[0] in ("blocks.0", "blocks.1")
    assert found.order[1] == "blocks.2"
    assert found.scores[found.order[0]] < 0.01
    assert found.scores[found.order[2]] > 0.1


def test_what_is_explained_is_told_jointly_and_alone():
    found = importance(chain(0.5, 0.0, 3.0), rows(300))
    assert found.explained is not None
    assert found.explained > 0.99
    assert found.alone["blocks.1"] == pytest.approx(0, abs=0.01)
    assert 0.3 < found.alone["blocks.2"] < found.explained
    assert set(found.coefficients) == {"blocks.1", "blocks.2"} or set(found.coefficients) == {
        "blocks.0",
        "blocks.2",
    }


def test_blocks_that_cannot_go_have_no_score_but_take_part():
    network = CifarResNet(channels=1, width=4, depth=14, base=2)
    found = importance(network, torch.rand(40, 1, 8, 8), coefficients=False)
    assert "stages.1.0" not in found.scores
    assert "stages.2.0" not in found.order
    assert {"stages.1.0", "stages.2.0"} <= set(found.alone)


def test_cosine_skip_and_taylor_are_what_their_papers_say():
    network, given = chain(0.8, 1.5).eval(), rows(50)
    with torch.no_grad():
        stream = network.first(given)
        after = network.blocks[0](stream)
        answer = network(given)
        with skipped(network, "blocks.1"):
            left = network(given)
    cosine = importance(network, given, by="cosine")
    expected = (1 - F.cosine_similarity(stream, after)).mean()
    assert cosine.scores["blocks.0"] == pytest.approx(float(expected), rel=1e-4)

    skip = importance(network, given, by="skip")
    divergence = F.kl_div(
        left.log_softmax(1), answer.log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert skip.scores["blocks.1"] == pytest.approx(float(divergence), rel=1e-4)
    labels = torch.arange(50) % 5
    hard = importance(network, given, by="skip", labels=labels)
    rise = F.cross_entropy(left, labels) - F.cross_entropy(answer, labels)
    assert hard.scores["blocks.1"] == pytest.approx(float(rise), rel=1e-3)
    values = importance(network, given, by="skip", output="values")
    square = (left - answer).square().mean()
    assert values.scores["blocks.1"] == pytest.approx(float(square), rel=1e-4)

    taylor = importance(network, given, by="taylor", labels=labels)
    middle = after.clone().requires_grad_()
    loss = F.cross_entropy(network.last(network.blocks[1](middle)), labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, middle)
    expected = (slope * (after - stream)).sum(1).abs().mean()
    assert taylor.scores["blocks.0"] == pytest.approx(float(expected), rel=1e-4)


def test_the_answer_of_another_teacher_counts():
    network, given = chain(1.0, 1.0, 1.0), rows(300)
    with torch.no_grad():
        stream = network.first(given)
        told = network.blocks[0](stream) - stream
    found = importance(network, given, answers=told, output="values", coefficients=False)
    assert found.order[-1] == "blocks.0"


@pytest.mark.parametrize("reduce", ["pca", "lda", "attention"])
def test_features_can_be_made_small_first(reduce):
    found = importance(
        chain(0.5, 0.0, 3.0), rows(200), reduce=reduce, components=4, coefficients=False
    )
    assert found.order[0] == "blocks.1"
    assert found.scores["blocks.1"] < 1e-6
    assert found.scores[found.order[-1]] > 1e-3


def tokens() -> tuple[nn.Module, torch.Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    network = nn.Sequential(nn.Embedding(20, 8), nn.TransformerEncoder(layer, 3))
    generator = torch.Generator().manual_seed(0)
    return network, torch.randint(20, (40, 6), generator=generator)


@pytest.mark.parametrize("by", MEASURES)
def test_token_ids_and_answers_per_position_are_taken(by):
    network, ids = tokens()
    found = importance(network, ids, by=by, output="values")
    assert len(found.scores) == 3
    assert all(torch.isfinite(torch.tensor(list(found.scores.values()))))


@pytest.mark.parametrize("by", MEASURES)
def test_an_encoder_of_hugging_face_inside_another_module_is_taken(by):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        vocab_size=30, max_position_embeddings=16,
    )  # fmt: skip

    class Sentence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = transformers.BertModel(config)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.encoder(ids).last_hidden_state.mean(1)

    ids = torch.randint(30, (24, 7), generator=torch.Generator().manual_seed(0))
    found = importance(Sentence(), ids, by=by, output="values", batch_size=10)
    assert list(found.scores) == [f"encoder.encoder.layer.{i}" for i in range(3)]


def test_it_is_written_down_and_read_again():
    found = importance(chain(0.5, 0.0, 3.0), rows())
    assert Importance.from_data(json.loads(json.dumps(found.to_data()))) == found
    told = "\n".join(found.lines())
    assert "blocks.2" in found.lines()[2]
    assert "explained variance" in told
    with pytest.raises(ModelError, match="measure it again"):
        Importance.from_data({"by": "skip"})


def test_what_cannot_be_measured_is_refused():
    network, given = chain(1.0, 1.0), rows(20)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: importance(network, given, answers=torch.zeros(3, 5)), "has 3 for 20 rows"),
        (lambda: importance(network, given, labels=torch.zeros(3)), "has 3 for 20 rows"),
        (lambda: importance(network, given, draws=0), "draws >= 1"),
        (lambda: importance(network, torch.zeros(20, 9)), "does not take"),
        (lambda: importance(network, torch.zeros(20, 6)), "are all equal"),
        (lambda: importance(network, given[:2]), "three rows or more"),
    ]
    for call, told in cases:
        with pytest.raises(ModelError, match=told):
            call()


def test_a_scale_multiplies_what_a_block_adds():
    network, given = chain(0.8, 1.5), rows(9)
    with resting(network):
        stream = network.first(given)
        added = network.blocks[0](stream) - stream
        goal = network.last(network.blocks[1](stream + 2.5 * added))
        with scaled(network, {"blocks.0": 2.5, "blocks.1": 1.0}):
            found = network(given)
        torch.testing.assert_close(found, goal)
        with scaled(network, {"blocks.0": 0.0}):
            none = network(given)
        with skipped(network, "blocks.0"):
            torch.testing.assert_close(network(given), none)


@pytest.mark.parametrize("output", ["logits", "values"])
def test_scales_bring_a_cut_network_nearer_to_the_whole_on_rows_it_has_not_seen(output):
    network = chain(0.6, 0.6, 0.6, 0.6)
    with torch.no_grad():
        # Blocks that do the same: what is left must do it twice as strongly.
        for block in network.blocks[1:]:
            block.load_state_dict(network.blocks[0].state_dict())
    keep = ["blocks.0", "blocks.3"]
    found = scales(network, rows(), keep, output=output)
    assert list(found) == keep
    assert all(1.0 < value <= 2 for value in found.values())
    fresh = rows(200, seed=9)
    with resting(network):
        whole = network(fresh)
        with without(network, ["blocks.1", "blocks.2"]):
            plain = answers(network, fresh, batch_size=64)
            with scaled(network, found):
                better = answers(network, fresh, batch_size=64)
    before, now = (distances(made, whole, output).mean() for made in (plain, better))
    assert float(now) < 0.5 * float(before)


def test_with_all_blocks_kept_nothing_is_scaled():
    network = chain(1.0, 1.0)
    assert scales(network, rows(), ["blocks.0", "blocks.1"]) == {}


def test_scales_are_for_blocks_of_the_network():
    network = CifarResNet(channels=1, width=4, depth=14, base=2)
    given = torch.rand(4, 1, 8, 8)
    with pytest.raises(ModelError, match="but nowhere is none"):
        scales(network, given, ["nowhere"])
    with pytest.raises(ModelError, match=r"stages\.1\.0, stages\.2\.0 cannot be dropped"):
        scales(network, given, ["stages.0.0"])


@pytest.mark.parametrize("by", MEASURES)
def test_few_rows_equal_rows_and_one_number_per_answer_are_taken(by):
    network = chain(1.0, 0.5, 0.2)
    one = nn.Sequential(network, nn.Linear(5, 1))
    for net, given, output in (
        (network, rows(8), "logits"),
        (network, rows(4).repeat(8, 1), "logits"),
        (one, rows(24), "values"),
        (one, rows(24), "logits"),
    ):
        found = importance(net, given, by=by, output=output)
        told = [*found.scores.values(), *found.low.values(), *found.high.values()]
        told += found.coefficients.values()
        assert torch.tensor(told).isfinite().all()


@pytest.mark.parametrize("by", MEASURES)
def test_rows_without_a_finite_answer_are_refused_by_their_number(by):
    given = rows(24)
    given[3, 0] = float("nan")
    for reduce in ("none", "pca", "lda"):
        with pytest.raises(ModelError, match=r"1 of 24 calibration rows are not \(3\)"):
            importance(chain(1.0, 0.5), given, by=by, reduce=reduce)


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"by": "skip", "labels": torch.full((24,), 7)}, r"`0 <= label < 5` must hold"),
        ({"by": "taylor", "labels": torch.randn(24)}, r"labels of classes must be int64 \[24\]"),
        ({"by": "skip", "output": "values", "labels": torch.randn(24)}, "the form of the answer"),
        ({"by": "skip", "answers": torch.randn(24, 3)}, r"\[24, 5\], but got \[24, 3\]"),
        ({"answers": torch.randn(24, 3)}, r"\[24, 5\], but got \[24, 3\]"),
        ({"ridge": 0.0}, r"`ridge > 0` must hold, but got ridge=0.0"),
        ({"ridge": -1}, r"`ridge > 0` must hold"),
    ],
)
def test_labels_answers_and_ridges_that_do_not_fit_are_refused(settings, law):
    with pytest.raises(ModelError, match=law):
        importance(chain(1.0, 0.5), rows(24), **settings)


def test_the_rows_run_once_for_features_and_answers():
    network, seen = chain(1.0, 0.5), []
    network.first.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    importance(network, rows(24), coefficients=False)
    assert seen.count(24) == 1


class Words(nn.Module):
    """PyTorch's own encoder, tokens or rows first: the same weights, the same answers."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first)
            self.words, self.head = nn.Embedding(40, 16), nn.Linear(16, 5)
            self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
            for number, parameter in enumerate(self.encoder.parameters()):
                nn.init.normal_(parameter, std=0.1 + 0.02 * (number % 7))
        self.batch_first = batch_first

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        stream = self.words(tokens)
        if self.batch_first:
            return self.head(self.encoder(stream).mean(1))
        return self.head(self.encoder(stream.transpose(0, 1)).mean(0))


@pytest.mark.parametrize("count", [60, 7])  # as many rows as tokens, too
@pytest.mark.parametrize("by", MEASURES)
def test_rows_may_lie_on_another_axis(by, count):
    tokens = torch.randint(40, (count, 7), generator=torch.Generator().manual_seed(0))
    usual, other = (
        importance(Words(batch_first=first).eval(), tokens, by=by, coefficients=False, draws=20)
        for first in (True, False)
    )
    assert usual.order == other.order
    for path, score in usual.scores.items():
        assert other.scores[path] == pytest.approx(score, rel=1e-3, abs=1e-5)


class Folded(Chain):
    """Two places of a row are two rows to the blocks."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        made = super().forward(torch.cat([given, -given]))
        return made[: len(given)] + made[len(given) :]


@pytest.mark.parametrize("by", ["importance", "cosine", "taylor"])
def test_what_has_no_row_for_each_row_is_refused(by):
    network = Folded(1.0, 0.5)
    with pytest.raises(ModelError, match="must have a row for each row"):
        importance(network, rows(), by=by)
    assert importance(network, rows(), by="skip").order
