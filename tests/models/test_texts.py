"""What every network of texts keeps to: padding is no text, and there may be no text at all."""

import doctest
import importlib
import inspect

import pytest
import torch

from understudy.models import CATALOGUE
from understudy.models.token_masks import attention_mask, backwards, max_over, mean_over

KINDS = sorted(kind for kind in CATALOGUE if kind.startswith("text_"))
ABOUT_THE_DATA = {"vocabulary", "pad", "length", "width"}
FACTS = {"vocabulary": 40, "pad": 3, "width": 5}
SMALL = {
    "text_static": {"dim": 6, "hidden": [7]},
    "text_cnn": {"dim": 6, "filters": 4, "kernels": [1, 2, 5]},
    "text_bilstm": {"dim": 6, "hidden": 5, "layers": 2},
    "text_transformer": {"length": 12, "dim": 8, "depth": 2, "heads": 2},
}


def small(kind, seed=0, **more):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CATALOGUE[kind](**FACTS, **{**SMALL[kind], **more})


def texts(*lengths, longest=12, seed=1):
    """Rows of so many tokens each, none of which is padding."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(4, 40, (len(lengths), longest), generator=generator)
    for row, length in zip(rows, lengths, strict=True):
        row[length:] = FACTS["pad"]
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_is_a_keyword_and_data_arguments_have_no_default(kind):
    parameters = inspect.signature(CATALOGUE[kind]).parameters
    for name, parameter in parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert (parameter.default is parameter.empty) == (name in ABOUT_THE_DATA)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_makes_no_difference_nor_does_company(kind):
    network, rows = small(kind).eval(), texts(12, 7, 3, 1)
    together = network(rows)
    assert together.shape == (4, 5)
    for at, length in enumerate((12, 7, 3, 1)):
        torch.testing.assert_close(network(rows[at : at + 1, :length]), together[at : at + 1])
    torch.testing.assert_close(network(rows.flip(0)), together.flip(0))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_nothing_but_padding_are_answered_and_can_be_learned_from(kind):
    network, rows = small(kind), texts(0, 0)
    answers = network.eval()(rows)
    assert answers.isfinite().all()
    torch.testing.assert_close(answers[0], answers[1])
    network.train()(torch.cat([rows, texts(5)])).square().sum().backward()
    assert all(w.grad.isfinite().all() for w in network.parameters() if w.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_every_weight(kind):
    network = small(kind)
    network(texts(12, 9, 6)).square().sum().backward()
    for name, weights in network.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.isfinite().all(), name
        assert weights.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text_static"])
def test_the_order_of_tokens_counts(kind):
    network, rows = small(kind).eval(), texts(8, longest=8)
    assert not torch.allclose(network(rows), network(rows.flip(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_answers_and_another_one_others(kind):
    rows = texts(9, 4)
    one, two, three = (small(kind, seed).eval()(rows) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_works_while_training_only(kind):
    network, rows = small(kind, dropout=0.5), texts(9, 4)
    assert not torch.equal(network(rows), network(rows))
    network.eval()
    assert torch.equal(network(rows), network(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_padding_and_dropout_outside_their_bounds_are_refused(kind):
    numbers = {n: v for n, v in {**FACTS, **SMALL[kind]}.items() if isinstance(v, int)}
    for name in set(numbers) - {"pad"}:
        with pytest.raises(ValueError, match=rf"`{name} >= 1` must hold"):
            CATALOGUE[kind](**{**FACTS, **SMALL[kind], name: 0})
    with pytest.raises(ValueError, match="`0 <= pad < vocabulary` must hold, but got pad=40"):
        CATALOGUE[kind](**{**FACTS, **SMALL[kind], "pad": 40})
    with pytest.raises(ValueError, match="`0 <= dropout < 1` must hold"):
        small(kind, dropout=1.0)


def test_a_text_longer_than_the_positions_is_refused_and_so_are_odd_heads():
    with pytest.raises(ValueError, match="at most 12 tokens, as the network has positions, but"):
        small("text_transformer")(texts(13, longest=13))
    with pytest.raises(ValueError, match="`dim % heads == 0`"):
        small("text_transformer", heads=3)
    with pytest.raises(ValueError, match="mlp_ratio"):
        small("text_transformer", mlp_ratio=0.0)
    with pytest.raises(ValueError, match="`kernels` must name at least one"):
        small("text_cnn", kernels=[])


def test_sums_and_turns_are_over_real_tokens_alone():
    states = torch.tensor([[[1.0], [5.0], [9.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_over(states, mask).tolist() == [[3.0], [0.0]]
    assert max_over(-states, mask).tolist() == [[-1.0], [0.0]]
    assert backwards(states, mask)[0, :, 0].tolist() == [5.0, 1.0, 9.0]
    assert backwards(states, mask)[1, :, 0].tolist() == [2.0, 4.0, 6.0]
    assert attention_mask(mask, torch.float32)[0, 0, 0].tolist() == [0.0, 0.0, -1e9]


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_in_the_manual_runs(kind):
    result = doctest.testmod(importlib.import_module(f"understudy.models.{kind}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text_static"])
def test_asked_once_per_token_every_real_one_is_answered_whatever_is_behind_it(kind):
    network, rows = small(kind, each_token=True).eval(), texts(12, 7, 3, 0)
    together = network(rows)
    assert together.shape == (4, 12, 5)
    assert together.isfinite().all()
    for at, length in enumerate((12, 7, 3)):
        alone = network(rows[at : at + 1, :length])
        torch.testing.assert_close(alone, together[at : at + 1, :length])
    # A token's answer is its own, and knows its neighbours.
    other = rows.clone()
    other[0, 5] = 4 if int(rows[0, 5]) != 4 else 5
    moved = (network(other)[0] - together[0]).abs().amax(dim=1)
    assert moved[5] > 0
    assert moved[4] > 0
    same = small(kind).state_dict()
    assert {n: v.shape for n, v in network.state_dict().items()} == {
        n: v.shape for n, v in same.items()
    }, "the same weights serve both"
