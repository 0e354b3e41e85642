"""New modules start from what they replace: exactly it where that is possible, else the nearest."""

import pytest
import torch
from torch import nn

from understudy.blockwise.attention import Attention, exchange
from understudy.blockwise.calls import Alone, allowed, rows_of, visible
from understudy.blockwise.direct import Direct, direct
from understudy.blockwise.form import Piece
from understudy.blockwise.replacements import Shared, SlimRecurrent, grouped, separated
from understudy.blockwise.words import Call
from understudy.errors import ModelError
from understudy.models.vit import FeedForward, SelfAttention, TransformerBlock


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def called(piece, stream, *args, **kwargs):
    piece.eval()
    with torch.no_grad():
        gives = piece(stream, *args, **kwargs)
    return Call(stream=stream, args=args, kwargs=kwargs, gives=gives)


def vit_block():
    torch.manual_seed(0)
    attention = SelfAttention(8, heads=4, dropout=0.0)
    return Piece(
        [TransformerBlock(8, attention=attention, mlp=FeedForward(8, inner=16, dropout=0.0))]
    )


def encoder_layer(**settings):
    torch.manual_seed(0)
    return Piece([nn.TransformerEncoderLayer(8, 4, 16, dropout=0.0, batch_first=True, **settings)])


# --- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    {"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2}, {"padding": "same", "bias": False},
])  # fmt: skip
def test_a_kernel_of_rank_one_is_separated_exactly(settings):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, **settings).double()
    point, deep = torch.randn(6, 4, 1, 1).double(), torch.randn(1, 4, 3, 3).double()
    layer.weight.data = point * deep
    rows = draws(2, 4, 9, 9).double()
    pair = separated(layer)
    assert pair[0].groups == 4
    assert torch.allclose(pair(rows), layer(rows), atol=1e-12)


def test_a_separated_kernel_is_the_nearest_of_its_kind():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3)
    pair = separated(layer)

    def distance(deep, point):
        return (layer.weight - point * deep.transpose(0, 1)).square().sum()

    best = distance(pair[0].weight, pair[1].weight)
    strength = torch.linalg.svdvals(layer.weight.flatten(2).transpose(0, 1))
    assert torch.allclose(best, strength[:, 1:].square().sum())
    for seed in range(5):
        deep = pair[0].weight + 0.05 * draws(4, 1, 3, 3, seed=seed)
        assert distance(deep, pair[1].weight) > best


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 6, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 1, 3), nn.Linear(4, 4),
])  # fmt: skip
def test_what_cannot_be_separated_with_fewer_weights_is_left(layer):
    assert separated(layer) is None


def test_a_grouped_convolution_is_the_full_one_without_weights_between_groups():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, padding=1)
    made = grouped(layer, 2)
    layer.weight.data[:3, 2:] = 0
    layer.weight.data[3:, :2] = 0
    rows = draws(2, 4, 5, 5)
    assert torch.allclose(made(rows), layer(rows), atol=1e-6)
    assert grouped(layer, 3) is None


# --- recurrent layers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("settings", [
    {}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "bias": False},
])  # fmt: skip
def test_a_slim_recurrent_layer_is_exact_where_the_other_units_are_dead(kind, settings):
    torch.manual_seed(0)
    layer = kind(5, 6, **settings)
    dead = [1, 4]
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.reshape(-1, 6, *value.shape[1:])[:, dead] = 0
            if name.startswith("weight_hh"):
                value[:, dead] = 0
    slim = SlimRecurrent(layer, hidden=4)
    rows = draws(3, 3, 5)
    (whole, state), (made, last) = layer(rows), slim(rows)
    assert torch.allclose(made, whole, atol=1e-6)
    hidden = state[0] if kind is nn.LSTM else state
    assert torch.allclose(last[0] if kind is nn.LSTM else last, hidden, atol=1e-6)
    count = sum(p.numel() for p in slim.parameters())
    assert count < sum(p.numel() for p in layer.parameters()) or kind is nn.RNN


@pytest.mark.parametrize(("layer", "hidden"), [
    (nn.LSTM(4, 4, proj_size=2), 2), (nn.LSTM(4, 4), 4), (nn.LSTM(4, 4), 0),
])  # fmt: skip
def test_recurrent_layers_that_cannot_be_slimmer_are_refused(layer, hidden):
    with pytest.raises(ModelError, match="1 <= hidden < hidden_size"):
        SlimRecurrent(layer, hidden=hidden)


def test_a_slim_recurrent_layer_refuses_a_start_state():
    slim = SlimRecurrent(nn.GRU(4, 4), hidden=2)
    with pytest.raises(ModelError, match="start state"):
        slim(draws(3, 2, 4), torch.zeros(1, 2, 4))


# --- attention -----------------------------------------------------------------------------------


PADDED = torch.tensor([[False] * 5, [False, False, False, True, True]])


@pytest.mark.parametrize(("piece", "kwargs"), [
    (vit_block(), {}),
    (encoder_layer(), {}),
    (encoder_layer(norm_first=True), {"src_key_padding_mask": PADDED}),
    (encoder_layer(), {"src_mask": nn.Transformer.generate_square_subsequent_mask(5)}),
], ids=["ours", "torch", "padded", "causal"])  # fmt: skip
def test_attention_is_rebuilt_as_it_was(piece, kwargs):
    call = called(piece, draws(2, 5, 8), **kwargs)
    made = exchange(piece, call, form="softmax").eval()
    assert sum(isinstance(part, Attention) for part in made.modules()) == 1
    shown = visible(call)
    shown = torch.ones(2, 5, dtype=torch.bool) if shown is None else shown
    with torch.no_grad():
        answer = made(call.stream, **kwargs)
    assert torch.allclose(answer[shown], call.gives[shown], atol=1e-5)


def test_the_attention_of_hugging_face_is_rebuilt_with_its_mask():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=4, intermediate_size=16,
        vocab_size=11,
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    piece = Piece([model.encoder.layer[0]])
    mask = ~PADDED[:, None, None, :]
    call = called(piece, draws(2, 5, 8), mask)
    for form in ("softmax", "linear"):
        made = exchange(piece, call, form=form).eval()
        with torch.no_grad():
            answer = made(call.stream, mask)
            other = call.stream.clone()
            other[1, 3:] = 7.0
            moved = made(other, mask)
        if form == "softmax":
            assert torch.allclose(answer, call.gives, atol=1e-5)
        # Hidden tokens are seen by nobody.
        assert torch.allclose(answer[1, :3], moved[1, :3], atol=1e-5)


def test_linear_attention_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    layer = Attention(8, heads=2, groups=2, size=4, form="linear").double()
    rows = draws(1, 5, 8).double()
    query, key, value = (
        one(rows).reshape(1, 5, 2, 4).transpose(1, 2)
        for one in (layer.query, layer.key, layer.value)
    )
    feature = lambda x: torch.where(x > 0, x + 1, x.exp())  # noqa: E731
    weights = feature(query) @ feature(key).transpose(2, 3)
    goal = (weights / weights.sum(dim=-1, keepdim=True)) @ value
    assert torch.allclose(layer(rows), goal.transpose(1, 2).flatten(2))


def test_heads_that_are_alike_share_their_keys_without_loss():
    piece = vit_block()
    qkv = piece.parts[0].attention.qkv
    with torch.no_grad():
        for part in (slice(8, 16), slice(16, 24)):
            for value in (qkv.weight[part], qkv.bias[part]):
                value.copy_(value[[0, 1, 0, 1, 4, 5, 4, 5]])
    call = called(piece, draws(2, 5, 8))
    made = exchange(piece, call, form="softmax", share=2)
    assert made.parts[0].attention.key.weight.shape == (4, 8)
    with torch.no_grad():
        assert torch.allclose(made(call.stream), call.gives, atol=1e-5)
    with pytest.raises(
        ModelError, match=r"4 heads of keys in `parts\.0\.attention` do not divide by 3"
    ):
        exchange(piece, call, form="softmax", share=3)


class Rotated(SelfAttention):
    """Does something of its own with the tokens."""

    def forward(self, tokens):
        return super().forward(tokens.roll(1, dims=1))


def test_attention_that_does_more_is_left_alone():
    torch.manual_seed(0)
    block = TransformerBlock(
        8, attention=Rotated(8, heads=2, dropout=0.0), mlp=FeedForward(8, inner=8, dropout=0.0)
    )
    piece = Piece([block])
    with pytest.raises(ModelError, match="does more than compare queries with keys"):
        exchange(piece, called(piece, draws(2, 5, 8)), form="linear")
    plain = Piece([nn.Linear(8, 8)])
    with pytest.raises(ModelError, match="no self-attention"):
        exchange(plain, called(plain, draws(2, 8)), form="linear")


def test_causal_attention_does_not_become_linear():
    piece = encoder_layer()
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    call = called(piece, draws(2, 5, 8), src_mask=mask)
    with pytest.raises(ModelError, match="masks other keys for each query"):
        exchange(piece, call, form="linear")


# --- around a block ------------------------------------------------------------------------------


@pytest.mark.parametrize(("takes", "layer", "maps"), [
    ((6,), nn.Linear(6, 3), False),
    ((5, 6), nn.Linear(6, 3), False),
    ((6, 4, 4), nn.Conv2d(6, 3, 1), True),
    ((6, 5, 5), nn.Sequential(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
                              nn.Conv2d(6, 3, 1)), True),
])  # fmt: skip
def test_a_block_that_is_linear_is_found_in_closed_form(takes, layer, maps):
    torch.manual_seed(0)
    piece = Piece([layer])
    call = called(piece, draws(64, *takes))
    made = direct(piece, call, project=True)
    assert made.maps == maps
    with torch.no_grad():
        assert torch.allclose(made(call.stream), call.gives, atol=2e-3)


def test_a_direct_way_passes_on_what_has_its_shape_and_rectifies_only_what_it_fits():
    piece = Piece([nn.Linear(4, 4), nn.ReLU()])
    call = called(piece, draws(16, 4))
    assert direct(piece, call, project=False)(call.stream) is call.stream
    made = direct(piece, call, project=True)
    assert isinstance(made.last, nn.ReLU)


def test_a_closed_form_does_not_look_at_hidden_tokens():
    piece = Piece([nn.Linear(3, 3)])
    call = called(Padded(piece), draws(2, 5, 3), src_key_padding_mask=PADDED)
    broken = Call(
        stream=call.stream, kwargs=call.kwargs,
        gives=torch.where(PADDED[..., None], 1e3, call.gives),
    )  # fmt: skip
    one, other = (direct(piece, given, project=True) for given in (call, broken))
    assert torch.allclose(one.layer.weight, other.layer.weight)


class Padded(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, stream, src_key_padding_mask=None):
        return self.inner(stream)


@pytest.mark.parametrize(("takes", "gives", "maps"), [
    ((5, 6), (4, 6), False), ((5, 6), (6,), False), ((6, 4, 4), (6, 3, 3), True),
])  # fmt: skip
def test_shapes_that_nothing_leads_between_are_refused(takes, gives, maps):
    with pytest.raises(ModelError, match="no pooling and linear layer leads from"):
        Direct(takes, gives, maps=maps, project=False, rectify=False)


def test_a_shared_block_has_its_neighbours_weights_and_learns_a_scale_alone():
    torch.manual_seed(0)
    neighbour = nn.Linear(3, 3)
    made = Shared(neighbour, features=3, axis=1)
    rows = draws(2, 3)
    assert torch.equal(made(rows), neighbour(rows))
    assert [name for name, p in made.named_parameters() if p.requires_grad] == ["scale", "shift"]
    made.tie(neighbour)
    assert made.neighbour is neighbour


# --- calls ---------------------------------------------------------------------------------------


def test_rows_of_a_call_take_their_own_masks_along():
    pairs = torch.zeros(4, 4)
    call = Call(
        stream=draws(4, 4, 2), args=(torch.arange(4), None, (torch.arange(4), torch.zeros(1, 4))),
        kwargs={"src_mask": pairs, "more": {"ids": torch.arange(4)}}, gives=draws(4, 4, 2),
    )  # fmt: skip
    part = rows_of(call, torch.tensor([2, 0]))
    assert part.args[0].tolist() == part.args[2][0].tolist() == [2, 0]
    assert part.args[2][1].shape == (1, 4)
    assert part.kwargs["more"]["ids"].tolist() == [2, 0]
    assert part.kwargs["src_mask"] is pairs
    seen = []
    piece = Seen(seen)
    Alone(piece, call)(call.stream[:3])
    assert seen[0][0].tolist() == [0, 1, 2]


class Seen(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, stream, *args, **kwargs):
        self.seen.append(args)
        return stream


@pytest.mark.parametrize("given", [
    {"args": (~PADDED,)},
    {"args": (~PADDED[:, None, None, :],)},
    {"args": (torch.where(PADDED, torch.finfo(torch.float32).min, 0.0)[:, None, None, :],)},
    {"kwargs": {"attention_mask": (~PADDED).long()}},
    {"kwargs": {"key_padding_mask": PADDED}},
    {"kwargs": {"src_key_padding_mask": torch.where(PADDED, float("-inf"), 0.0)}},
])  # fmt: skip
def test_masks_in_all_forms_say_which_tokens_count(given):
    stream = draws(2, 5, 3)
    call = Call(stream=stream, gives=stream, **given)
    assert torch.equal(visible(call), ~PADDED)


def test_streams_without_tokens_and_other_tensors_are_not_masked():
    assert allowed(draws(2, 5), (PADDED,), {}) is None
    assert allowed(draws(2, 5, 3), (torch.zeros(2, 5, dtype=torch.int64),), {}) is None
    assert allowed(draws(2, 5, 3), (draws(2, 5, 3), None), {"position_ids": PADDED}) is None
    assert visible(Call(stream=draws(2, 5, 3), gives=draws(2, 3), args=(~PADDED,))) is None
