"""Reading inside a model: what is found, what is refused, and that nothing is left behind."""

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.features.hooks import Spot, capture, module_at


class Pair(nn.Module):
    """Gives a tuple of which one is no tensor."""

    def forward(self, rows):
        return rows + 1, rows * 2, "text"


class Named(nn.Module):
    """Gives a mapping, as transformers do."""

    def forward(self, rows):
        return {"pooled": rows.sum(dim=1), "last_hidden_state": rows * 3}


class Told(nn.Module):
    """Is called by name only, and gives an object."""

    def forward(self, *, rows):
        answer = nn.Module()
        answer.last_hidden_state = rows * 5
        return answer


class Net(nn.Module):
    """One of everything."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.pair = Pair()
        self.named = Named()
        self.told = Told()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.ways = nn.ModuleDict({"way-1": nn.Identity()})
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, rows):
        hidden = self.first(rows)
        one, two, _ = self.pair(hidden)
        hidden = self.named(one + two)["last_hidden_state"]
        hidden = self.told(rows=hidden).last_hidden_state
        for block in (*self.blocks, self.blocks[0]):
            hidden = block(hidden)
        return self.head(self.ways["way-1"](hidden))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def read(net, *spots, rows=None):
    with capture(net, spots) as captured:
        net(torch.ones(2, 3) if rows is None else rows)
    return captured.found()


@pytest.mark.parametrize(("text", "expected"), [
    ("a.b", Spot(path="a.b")),
    ("a.b:output", Spot(path="a.b")),
    ("a:input", Spot(path="a", side="input")),
    ("a:output[12]", Spot(path="a", item=12)),
    ("a:input[0]", Spot(path="a", side="input", item=0)),
    ("ways.way-1", Spot(path="ways.way-1")),
])  # fmt: skip
def test_a_spot_is_read_as_it_is_written(text, expected):
    assert Spot.parse(text) == expected


@pytest.mark.parametrize("text", ["", ":input", "a:outptu", "a[1]", "a:output[-1]", "a:output[x]"])
def test_what_is_not_written_so_is_refused_with_the_form(text):
    with pytest.raises(ModelError, match=r"`path`, `path:input` or `path:output\[1\]`"):
        Spot.parse(text)


def test_outputs_inputs_items_mappings_and_objects_are_found(net):
    rows = torch.randn(2, 3)
    found = read(net, "first", "first:input", "pair:output[1]", "named", "told:input", "told",
                 "ways.way-1", rows=rows)  # fmt: skip
    first = net.first(rows)
    torch.testing.assert_close(found["first"], first)
    assert torch.equal(found["first:input"], rows)
    torch.testing.assert_close(found["pair:output[1]"], 2 * first)
    torch.testing.assert_close(found["named"], 3 * (3 * first + 1))
    assert torch.equal(found["told:input"], found["named"])
    assert torch.equal(found["told"], 5 * found["named"])
    assert found["ways.way-1"].shape == (2, 4)


def test_the_first_tensor_of_a_tuple_is_taken_where_no_item_is_named(net):
    found = read(net, "pair", "pair:output[0]")
    assert torch.equal(found["pair"], found["pair:output[0]"])


def test_gradients_go_back_through_what_was_read(net):
    read(net, "blocks.0")["blocks.0"].sum().backward()
    assert net.first.weight.grad is not None
    assert net.head.weight.grad is None


def test_a_module_that_runs_twice_is_read_at_its_last_call(net):
    found = read(net, "blocks.0", "blocks.1", "head:input")
    assert torch.equal(found["blocks.0"], found["head:input"])
    torch.testing.assert_close(found["blocks.0"], net.blocks[0](found["blocks.1"]))


@pytest.mark.parametrize("item", [2, 3])
def test_an_item_that_is_no_tensor_or_not_there_is_refused_with_what_is(net, item):
    with pytest.raises(ModelError, match="a tuple of Tensor, Tensor, str"):
        read(net, f"pair:output[{item}]")


def test_an_item_of_what_is_no_tuple_is_refused(net):
    """A whole tensor in its place would be another layer than the one that was named."""
    with pytest.raises(ModelError, match="it is a Tensor: leave the item out"):
        read(net, "first:output[1]")
    with pytest.raises(ModelError, match="it is a dict"):
        read(net, "named:output[1]")


def test_a_path_that_is_not_there_lists_the_near_ones(net):
    with pytest.raises(ModelError) as error, capture(net, ["block.1"]):
        pass
    assert "Net has no module `block.1`" in str(error.value)
    assert "near are blocks.1" in str(error.value)
    with pytest.raises(ModelError, match=r"near are first, pair, named"):
        module_at(net, "zzzzzz")


@pytest.mark.parametrize("spot", ["unused", "blocks", "ways"])
def test_a_module_that_did_not_run_is_named(net, spot):
    with pytest.raises(ModelError, match=f"`{spot}` of Net is there, but was not called"):
        read(net, spot)


def test_nothing_of_the_pass_before_is_left_to_be_read(net):
    spots = ["first"]
    with capture(net, spots) as captured:
        net(torch.ones(2, 3))
    assert captured.found()
    with capture(net, spots) as captured:
        pass
    with pytest.raises(ModelError, match="was not called"):
        captured.found()


@pytest.mark.parametrize("spot", ["0", "1:input"])
@pytest.mark.parametrize("grad", [True, False])
def test_a_layer_that_is_overwritten_in_place_is_refused(spot, grad):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    law = "overwritten by a later module that works in place"
    with torch.set_grad_enabled(grad), pytest.raises(ModelError, match=law):
        read(net, spot)
    assert (read(net, "1")["1"] >= 0).all()


def test_a_sum_in_place_is_seen_too():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, rows):
            hidden = self.layer(rows)
            hidden += rows
            return hidden

    with pytest.raises(ModelError, match="in place"):
        read(Adds(), "layer")


def hooks_of(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_no_hook_is_left_whatever_happens(net):
    read(net, "first", "told:input")
    assert hooks_of(net) == 0
    with capture(net, ["first", "head:input"]):
        assert hooks_of(net) == 2
    with pytest.raises(RuntimeError):
        read(net, "first", "head:input", rows=torch.ones(2, 5))
    with pytest.raises(ModelError), capture(net, ["first", "nowhere"]):
        pass
    assert hooks_of(net) == 0


def test_reading_does_not_change_the_answer(net):
    rows = torch.randn(4, 3)
    with capture(net, ["first", "pair", "told:input"]):
        read_along = net(rows)
    assert torch.equal(read_along, net(rows))


def test_a_spot_that_is_named_twice_is_read_once(net):
    with capture(net, ["first", "first"]):
        assert hooks_of(net) == 1


def test_a_model_that_answers_in_inference_mode_is_read_too():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.inference_mode():
        found = read(net, "0")
    assert found["0"].shape == (2, 4)
