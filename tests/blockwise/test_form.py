"""A block alone, candidates in its place, and what passes through it."""

import json

import pytest
import torch
from torch import nn

from understudy import models
from understudy.blockwise.form import (
    Block,
    Call,
    Candidate,
    Damage,
    Partition,
    Piece,
    Placed,
    Rest,
    parted,
    passing,
    piece,
    replaced,
)
from understudy.blockwise.partition import partition
from understudy.errors import ModelError
from understudy.students.blocks.surgery import skipped
from understudy.students.depth import cut_depth, plan_depth

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
TOKENS = torch.randint(0, 20, (3, 5), generator=torch.Generator().manual_seed(1))


class Reader(nn.Module):
    """Recurrent layers, of the last of which only the last state is used."""

    def __init__(self, *, kind=nn.LSTM, bidirectional=False):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        settings = {"batch_first": True, "bidirectional": bidirectional}
        size = 8 if bidirectional else 4
        self.layers = nn.ModuleList([kind(6, 4, **settings), kind(size, 4, **settings)])
        self.head = nn.Linear(size, 2)

    def forward(self, tokens):
        stream = self.embedding(tokens)
        for layer in self.layers:
            stream, state = layer(stream)
        last = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat(list(last), 1))


def network():
    torch.manual_seed(0)
    return models.CifarResNet(channels=3, width=4, depth=8, base=4).double().eval()


def block(name, *paths, items=()):
    return Block(name=name, paths=paths, takes=(6,), gives=(6,), parameters=1, flops=2, items=items)


def parted_into(*blocks):
    return Partition(blocks=blocks, rest=Rest(parameters=0, flops=0))


def answer(network, rows):
    with torch.no_grad():
        return network(rows)


def test_data_comes_back_from_json_as_it_was():
    first = block("a", "a.0", "a.1", items=(0, 2))
    whole = Partition(blocks=(first,), rest=Rest(parameters=3, flops=4, ms=0.5))
    candidate = Candidate(
        kind="low_rank", label="rank 4", parameters=1, bytes=4, ms=None, flops=2, settings={"r": 4}
    )
    damage = Damage(block="a", candidate="rank 4", kl=0.25, metric_drop=0)
    for one in (first, whole, candidate, damage):
        assert type(one).from_data(json.loads(json.dumps(one.to_data()))) == one


def test_the_table_sums_the_blocks_and_the_rest():
    whole = Partition(blocks=(block("a", "x"), block("b", "y")), rest=Rest(parameters=3, flops=4))
    lines = whole.lines()
    assert lines[0].split()[:2] == ["block", "modules"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "b", "(rest)", "total"]
    assert lines[-1].split()[1] == "5"


def test_a_block_that_is_not_there_is_refused_with_a_suggestion():
    whole = Partition(blocks=(block("stage0", "x"),), rest=Rest(parameters=0, flops=0))
    with pytest.raises(ModelError, match="did you mean `stage0`"):
        whole["stage1"]


def test_a_piece_runs_its_modules_with_the_same_other_arguments():
    class Scaled(nn.Module):
        def forward(self, hidden, factor, *, shift=0.0):
            return hidden * factor + shift, "state"

    alone = Piece([Scaled(), nn.Tanh(), Scaled()], bare=[False, True, False])
    rows = torch.randn(2, 3)
    expected = torch.tanh(rows * 2 + 1) * 2 + 1
    assert torch.equal(alone(rows, 2.0, shift=1.0), expected)


@pytest.mark.parametrize(("modules", "bare"), [([], None), ([nn.Tanh()], [True, False])])
def test_a_piece_without_modules_or_with_other_marks_is_refused(modules, bare):
    with pytest.raises(ValueError, match="must hold"):
        Piece(modules, bare=bare)


def test_a_module_that_gives_no_tensor_is_refused():
    class Silent(nn.Module):
        def forward(self, hidden):
            return "nothing"

    with pytest.raises(ModelError, match="gives no tensor"):
        Piece([Silent()])(torch.zeros(2, 2))


def test_the_stream_is_the_first_argument_or_the_first_named_tensor():
    rows, mask = torch.zeros(2, 3), torch.ones(2)
    plain = nn.Linear(3, 3)
    assert parted(plain, (rows, mask), {"flag": True}) == (rows, (mask,), {"flag": True})
    stream, args, kwargs = parted(plain, (), {"flag": True, "hidden": rows, "mask": mask})
    assert stream is rows
    assert args == ()
    assert kwargs.keys() == {"flag", "mask"}
    with pytest.raises(ModelError, match="cut where one tensor crosses"):
        parted(plain, ((rows, mask),), {})


class Masking(nn.Module):
    """A block that is called by names, its mask before its stream."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, hidden, mask=None, flag=False):
        return hidden + self.layer(hidden) * mask


class ByNames(nn.Module):
    """Blocks in a list, or as attributes, that are called by names."""

    def __init__(self, *, listed=True):
        super().__init__()
        self.blocks = nn.ModuleList(Masking() for _ in range(4)) if listed else None
        if not listed:
            self.one, self.two, self.three = Masking(), Masking(), Masking()
        self.head = nn.Linear(3, 2)

    def forward(self, rows):
        mask = (rows[:, :1] > 0).float()
        for block in self.blocks or (self.one, self.two, self.three):
            rows = block(flag=True, mask=mask, hidden=rows)
        return self.head(rows)


@pytest.mark.parametrize("listed", [True, False])
def test_the_order_of_names_in_a_call_does_not_matter(listed):
    """The stream is the first tensor that the module declares, not the first that is named."""
    torch.manual_seed(0)
    network, rows = ByNames(listed=listed).eval(), torch.randn(5, 3)
    stream, _, named = parted(Masking(), (), {"mask": rows[:, :1], "hidden": rows})
    assert stream is rows
    assert named.keys() == {"mask"}
    found = partition(network, rows)
    assert len(found.blocks) == (4 if listed else 3)
    same = {block.name: piece(network, block) for block in found.blocks}
    assert torch.equal(replaced(network, found, same)(rows), network(rows))
    gone = found.blocks[1]
    with skipped(network, gone.paths[0]):
        goal = network(rows)
    plan = plan_depth(network, rows, keep=[n for n in range(len(found.blocks)) if n != 1])
    assert torch.equal(cut_depth(network, plan, rows).module(rows), goal)


def test_nothing_replaced_is_the_network_bit_for_bit():
    old = network()
    made = replaced(old, partition(old, IMAGES, measure=False), {})
    assert torch.equal(answer(made, IMAGES), answer(old, IMAGES))
    assert list(made.state_dict()) == list(old.state_dict())


def test_a_candidate_stands_in_the_place_of_its_block():
    old = network()
    blocks = partition(old, IMAGES, by=["stages.0.0", "stages.1.0"], measure=False)
    narrow = nn.Conv2d(4, 4, 1).double()
    made = replaced(old, blocks, {"stages.0.0": narrow})
    with torch.no_grad():
        maps = narrow(old.stem(IMAGES))
        expected = old.head(old.stages[2](old.stages[1](maps)).mean((2, 3)))
    assert torch.equal(answer(made, IMAGES), expected)
    with torch.no_grad():
        narrow.weight.zero_()
    assert torch.equal(answer(made, IMAGES), expected)


def test_other_modules_of_a_replaced_block_pass_the_stream_on():
    mlp = models.MLP(inputs=6, width=2, hidden=[6, 6, 6]).double().eval()
    rows = torch.randn(3, 6).double()
    blocks = partition(mlp, rows, by="flops", parts=1, measure=False)
    made = replaced(mlp, blocks, {blocks.blocks[0].name: nn.Tanh()})
    assert torch.equal(answer(made, rows), answer(mlp.head, torch.tanh(rows)))
    assert sum(p.numel() for p in made.parameters()) == sum(
        p.numel() for p in mlp.head.parameters()
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_state_of_a_replaced_recurrent_layer_is_that_of_its_stream(kind, bidirectional):
    reader = Reader(kind=kind, bidirectional=bidirectional).double().eval()
    blocks = partition(reader, TOKENS, measure=False)
    pieces = {one.name: piece(reader, one) for one in blocks.blocks}
    assert torch.equal(answer(replaced(reader, blocks, pieces), TOKENS), answer(reader, TOKENS))


def test_a_placed_module_has_the_attributes_of_the_one_before_without_its_weights():
    stand = Placed(nn.Identity(), like=nn.Linear(6, 6), items=0)
    assert stand.in_features == 6
    assert stand.weight.device.type == "meta"
    assert not list(stand.parameters())
    with pytest.raises(AttributeError):
        _ = stand.in_channels


def test_a_placed_module_answers_in_the_form_of_the_one_before():
    rows = torch.zeros(2, 3)
    assert Placed(None, like=nn.Tanh(), items=3)(hidden=rows, mask=None) == (rows, None, None)
    assert Placed(None, like=nn.Tanh(), items=0)(rows) is rows


def test_what_passes_is_what_the_block_alone_takes_and_gives():
    old = network()
    blocks = partition(old, IMAGES, measure=False)
    calls = passing(old, blocks, IMAGES)
    for one in blocks.blocks:
        call = calls[one.name]
        assert isinstance(call, Call)
        assert call.stream.shape == (3, *one.takes)
        made = answer(piece(old, one), call.stream)
        assert torch.equal(made, call.gives)
    assert not any(module._forward_hooks for module in old.modules())


def test_what_passes_is_kept_though_the_block_writes_over_it():
    one = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True))
    old = nn.Sequential(nn.ReLU(inplace=True), one, nn.Linear(6, 2)).eval()
    rows = torch.randn(3, 6)
    blocks = Partition(
        blocks=(block("all", "0", "1", items=(0, 0)),), rest=Rest(parameters=0, flops=0)
    )
    call = passing(old, blocks, rows.clone())["all"]
    assert torch.equal(call.stream, rows)


def test_a_cache_is_not_kept():
    class Cached(nn.Module):
        def forward(self, hidden, *, mask=None, cache=None):
            return hidden

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Cached()

        def forward(self, rows):
            return self.layer(rows, mask=(rows > 0, 1), cache=object())

    blocks = Partition(
        blocks=(block("one", "layer", items=(0,)),), rest=Rest(parameters=0, flops=0)
    )
    call = passing(Outer(), blocks, torch.ones(2, 3))["one"]
    assert call.kwargs["cache"] is None
    assert call.kwargs["mask"][0].all()
    assert call.kwargs["mask"][1] == 1


def test_a_partition_of_another_network_is_refused():
    blocks = partition(network(), IMAGES, measure=False)
    other = models.MLP(inputs=192, width=2, hidden=[4])
    for act in (
        lambda: passing(other, blocks, IMAGES.float()),
        lambda: piece(other, blocks.blocks[0]),
        lambda: replaced(other, blocks, {"stages.0.0": nn.Identity()}),
    ):
        with pytest.raises(ModelError, match=r"MLP has no module `stages\.0\.0`"):
            act()


def test_rows_that_the_network_does_not_take_are_refused():
    blocks = partition(network(), IMAGES, measure=False)
    with pytest.raises(ModelError, match="does not take"):
        passing(network(), blocks, IMAGES[:, :2])
