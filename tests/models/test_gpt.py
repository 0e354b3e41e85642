"""Our small GPT: documents that do not see each other, exact steps, what it refuses."""

import doctest

import pytest
import torch
from torch import nn

from understudy.models import CAUSAL, GPT, gpt
from understudy.models.causal import CausalModel, head_logits

FORMS = {
    "plain": {},
    "grouped": {"kv_heads": 1},
    "layer": {"norm": "layer", "mlp": "gelu", "tied": False},
}


def made(form="plain", **more):
    torch.manual_seed(0)
    net = GPT(
        vocabulary=20, context=32, **{"dim": 16, "depth": 2, "heads": 2, **FORMS[form], **more}
    )
    for parameter in net.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.4)
    return net.double().eval()


def draw(rows, length, seed=0):
    return torch.randint(3, 20, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(found, goal):
    torch.testing.assert_close(found, goal, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_a_causal_model(form):
    net = made(form)
    assert isinstance(net, CausalModel)
    assert CAUSAL["gpt"] is GPT
    tokens = draw(2, 7)
    assert net.head.weight.shape == (20, 16)
    assert any(net.head.weight is parameter for parameter in net.parameters())
    close(head_logits(net.states(tokens), net.head), net(tokens))


@pytest.mark.parametrize("form", FORMS)
def test_no_token_sees_a_later_one(form):
    net, tokens = made(form), draw(1, 9)
    changed = tokens.clone()
    changed[0, 5:] = 3
    close(net(changed)[:, :5], net(tokens)[:, :5])
    assert not torch.allclose(net(changed)[:, 6:], net(tokens)[:, 6:])


@pytest.mark.parametrize("form", FORMS)
def test_a_document_in_a_packed_row_is_what_it_is_alone(form):
    begun, ended = made(form, begin=1), made(form, end=2)
    first, last = torch.ones((2, 1), dtype=torch.int64), torch.full((2, 1), 2)
    texts = [draw(2, length, seed=length) for length in (6, 1, 9)]
    for net, documents in (
        (begun, [torch.cat([first, text], dim=1) for text in texts]),
        (ended, [torch.cat([text, last], dim=1) for text in texts]),
        (made(form, begin=1, end=2), [torch.cat([first, text, last], dim=1) for text in texts]),
    ):
        logits, at = net(torch.cat([*documents, torch.zeros_like(last)], dim=1)), 0
        for document in documents:
            close(logits[:, at : at + document.shape[1]], net(document))
            at += document.shape[1]
    # Without either they do see each other.
    mixed = torch.cat([texts[0], last, texts[2]], dim=1)
    assert not torch.allclose(made(form)(mixed)[:, 7:], made(form)(texts[2]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [{}, {"begin": 1}, {"end": 2}])
def test_steps_give_what_the_whole_row_gives(form, tokens):
    net, row = made(form, **tokens), draw(2, 12)
    row[0, 4], row[1, 7] = 1, 2
    whole, past, at = net(row), (), 0
    for size in (5, 1, 1, 4, 1):
        told, past = net.step(row[:, at : at + size], past)
        at += size
        close(told, whole[:, at - 1])
    assert torch.equal(past[0], row)
    assert len(past) == 1 + 2 * 2


def test_shared_keys_are_smaller_and_a_tied_head_counts_once(count):
    plain, grouped = made(), made("grouped")
    assert count(plain) - count(grouped) == 2 * 2 * 16 * 8
    assert count(made(tied=False)) - count(plain) == 20 * 16
    _, past = grouped.step(draw(1, 3))
    assert past[1].shape == (1, 1, 3, 8)


def test_both_hidden_layers_cost_the_same(count):
    wide = {"dim": 48, "heads": 2, "vocabulary": 9, "context": 4}
    assert count(GPT(**wide)) == count(GPT(**wide, mlp="gelu"))


def test_it_learns_a_sequence_by_heart():
    torch.manual_seed(0)
    net = GPT(vocabulary=12, context=16, dim=32, depth=2, heads=2)
    rows = torch.arange(12).repeat(2)[:13][None]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(rows[:, :-1])[0], rows[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.mark.parametrize(
    ("given", "law"),
    [
        ({"dim": 0}, "`dim >= 1`"),
        ({"heads": 3}, r"`dim % \(2 \* heads\) == 0`"),
        ({"heads": 4, "kv_heads": 3}, "`heads % kv_heads == 0`"),
        ({"end": 20}, "`0 <= token < vocabulary`"),
        ({"begin": -1}, "`0 <= token < vocabulary`"),
        ({"dropout": 1.0}, "`0 <= dropout < 1`"),
        ({"mlp_ratio": float("nan")}, r"`dim \* mlp_ratio >= 1`"),
        ({"norm": "batch"}, "`norm` must be one of rms, layer"),
        ({"mlp": "relu"}, "`mlp` must be one of swiglu, gelu"),
    ],
)
def test_what_it_refuses(as_users_run_it, given, law):
    with pytest.raises(ValueError, match=law):
        GPT(**{"vocabulary": 20, "context": 8, "dim": 16, **given})


def test_rows_that_do_not_fit_the_context():
    net = made()
    with pytest.raises(ValueError, match="1 to 32 tokens, the model's context, but got 33"):
        net(draw(1, 33))
    with pytest.raises(ValueError, match="but got 0"):
        net(draw(1, 0))
    _, past = net.step(draw(1, 30))
    with pytest.raises(ValueError, match="but got 3 after 30"):
        net.step(draw(1, 3), past)


def test_dropout_works_while_training_only():
    net, row = made(dropout=0.5), draw(1, 5)
    close(net(row), net(row))
    net.train()
    assert not torch.allclose(net(row), net(row))


def test_the_example_in_the_manual_runs():
    result = doctest.testmod(gpt)
    assert result.attempted > 0
    assert result.failed == 0
