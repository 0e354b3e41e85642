"""Generation: what a plain loop without a cache gives, row by row, and what it refuses."""

import doctest

import numpy as np
import pytest
import torch
from torch import nn

from understudy.deployed import sampling as numpy_sampling
from understudy.deployed.sampling import Sampling, probabilities
from understudy.errors import DataError
from understudy.models import GPT, generating
from understudy.models.generating import filtered, generate

t = pytest.importorskip("transformers")


def made(**more):
    torch.manual_seed(0)
    settings = {"vocabulary": 30, "context": 24, "dim": 16, "depth": 2, "heads": 2, "kv_heads": 1}
    net = GPT(**{**settings, **more})
    for parameter in net.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.5)
    return net.double()


def by_hand(net, prompt, most, stop=()):
    net.eval()
    row = torch.tensor([prompt])
    with torch.no_grad():
        while row.shape[1] < min(len(prompt) + most, net.context):
            row = torch.cat([row, net(row)[:, -1].argmax(1, keepdim=True)], dim=1)
            if int(row[0, -1]) in stop:
                break
    return row[0, len(prompt) :].tolist()


PROMPTS = [[5, 6, 7, 8, 9], [4], [11, 12, 13], [20] * 12]


def test_greedy_texts_are_those_of_a_loop_without_a_cache():
    net = made().train()
    found = generate(net, PROMPTS, most=9)
    assert net.training
    assert [row.tolist() for row in found] == [by_hand(net, p, 9) for p in PROMPTS]
    one = generate(net.eval(), [torch.tensor(PROMPTS[1])], most=9)
    assert torch.equal(one[0], found[1])
    assert generate(net, [], most=3) == []


def test_a_text_ends_with_a_stop_token_or_where_the_context_is_full():
    net = made()
    texts = [by_hand(net, p, 9) for p in PROMPTS]
    stop = (texts[0][4], texts[2][2])
    found = [row.tolist() for row in generate(net, PROMPTS, most=9, stop=stop)]
    assert found == [by_hand(net, p, 9, stop) for p in PROMPTS]
    assert len(found[0]) <= 5
    assert found[0][-1] in stop
    full = generate(net, PROMPTS, most=100)
    assert [len(p) + len(row) for p, row in zip(PROMPTS, full, strict=True)] == [24] * 4
    own = made(end=texts[0][4])
    assert [r.tolist() for r in generate(own, PROMPTS[:1], most=9)] == [
        by_hand(own, PROMPTS[0], 9, (texts[0][4],))
    ]


def test_hugging_faces_own_greedy_text():
    from understudy.teachers.hf_causal import causal_of

    config = t.LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    network = t.LlamaForCausalLM(config).eval()
    # A text of ours would begin anew where the model says that one begins.
    model = causal_of(network, begin=None, end=None)
    prompts = [[1, 5, 6, 7], [1, 9], [1, 30, 31, 32, 33, 34]]
    found = generate(model, prompts, most=16, stop=(2,))
    for prompt, row in zip(prompts, found, strict=True):
        goal = network.generate(
            torch.tensor([prompt]), max_new_tokens=16, do_sample=False,
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
        )  # fmt: skip
        assert row.tolist() == goal[0, len(prompt) :].tolist()


def test_drawn_texts_are_replayed_by_their_seed():
    net = made()

    def drawn(seed):
        draw = torch.Generator().manual_seed(seed)
        return [
            row.tolist()
            for row in generate(net, PROMPTS, most=9, sampling=Sampling(), generator=draw)
        ]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1) != [row.tolist() for row in generate(net, PROMPTS, most=9)]
    cold = generate(net, PROMPTS, most=9, sampling=Sampling(temperature=1e-4))
    assert [r.tolist() for r in cold] == [r.tolist() for r in generate(net, PROMPTS, most=9)]


def test_tokens_are_drawn_by_their_probability():
    net, rows = made(), 4000
    draw = torch.Generator().manual_seed(0)
    sampling = Sampling(temperature=2.0, top_k=5)
    found = generate(net, [[3, 4]] * rows, most=1, sampling=sampling, generator=draw)
    seen = torch.bincount(torch.cat(found), minlength=30) / rows
    with torch.no_grad():
        logits = net.step(torch.tensor([[3, 4]]))[0][0] / 2
    kept = logits.topk(5)
    goal = torch.zeros(30, dtype=torch.float64)
    goal[kept.indices] = kept.values.softmax(0)
    assert (seen - goal).abs().max() < 0.03
    assert int((seen > 0).sum()) == 5


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_k=3),
        Sampling(top_p=0.6),
        Sampling(top_p=1.0, top_k=40),
        Sampling(temperature=1.7, top_k=8, top_p=0.5),
    ],
)
def test_both_forms_draw_from_one_distribution(sampling):
    logits = 2 * torch.randn(3, 30, generator=torch.Generator().manual_seed(0)).double()
    logits[0, 4] = logits[0, 9]
    found = filtered(logits, sampling).exp()
    goal = np.stack([probabilities(row.numpy(), sampling) for row in logits])
    np.testing.assert_allclose(found.numpy(), goal, atol=1e-12)
    np.testing.assert_allclose(goal.sum(1), 1)


def test_top_p_keeps_the_fewest_that_reach_the_mass():
    logits = np.log([0.5, 0.25, 0.15, 0.1])
    assert (probabilities(logits, Sampling(top_p=0.01)) > 0).sum() == 1
    assert (probabilities(logits, Sampling(top_p=0.6)) > 0).sum() == 2
    assert (probabilities(logits, Sampling(top_p=0.8)) > 0).sum() == 3


@pytest.mark.parametrize(
    ("given", "law"),
    [
        ({"temperature": 0.0}, "`temperature > 0` must hold, but got 0.0"),
        ({"temperature": float("nan")}, "`temperature > 0`"),
        ({"top_k": 0}, "`top_k >= 1` must hold, but got 0"),
        ({"top_p": 0.0}, "`0 < top_p <= 1` must hold, but got 0.0"),
        ({"top_p": 1.1}, "`0 < top_p <= 1`"),
    ],
)
def test_samplings_that_mean_nothing(given, law):
    with pytest.raises(ValueError, match=law):
        Sampling(**given)


@pytest.mark.parametrize(
    ("prompts", "law"),
    [
        ([[3], []], "1 to 23 tokens, .* but prompt 2 has 0"),
        ([[3] * 24], "1 to 23 tokens, .* but prompt 1 has 24"),
        ([[3, 30]], "`0 <= token < 30` must hold, .* prompt 1 has tokens from 3 to 30"),
        ([[-1]], "tokens from -1 to -1"),
    ],
)
def test_prompts_that_it_cannot_go_on_from(prompts, law):
    with pytest.raises(DataError, match=law):
        generate(made(), prompts, most=2)
    with pytest.raises(ValueError, match="`most >= 1`"):
        generate(made(), [[3]], most=0)


@pytest.mark.parametrize("module", [generating, numpy_sampling])
def test_the_examples_in_the_manual_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
