"""Students for groups of classes: their damage, their head, their choice and their lesson."""

import numpy as np
import pytest
import torch
from torch import nn

from blockwise.clan import HEAPS, LEARN, WIDTH, clan
from understudy.blockwise import assembling
from understudy.blockwise.family import tuned
from understudy.blockwise.form import replaced
from understudy.blockwise.lessons import Lesson, stored
from understudy.blockwise.partition import partition
from understudy.blockwise.recombine import Option
from understudy.blockwise.specialists import head_cut, specialists
from understudy.errors import DataError, ModelError
from understudy.evaluate.cost import flops, parameters
from understudy.recipe import Optimizer, Training


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return clan(tmp_path_factory.mktemp("specialists"))


def made_of(ground, budgets, groups=HEAPS, **changes):
    held = slice(LEARN, None)
    settings = {"rows": ground.inputs[held], "told": ground.labels[held].numpy()} | changes
    return specialists(
        ground.network, ground.parts, ground.modules, ground.offered, groups, budgets, **settings
    )


@pytest.fixture(scope="module")
def members(ground):
    return made_of(ground, {"parameters": 0.6 * parameters(ground.network)})


def test_a_cut_head_gives_the_same_logits_for_its_classes(ground):
    made = head_cut(ground.network, ground.inputs, (4, 1))
    with torch.no_grad():
        whole = ground.network(ground.inputs)
        assert whole.shape[1] == 6
        assert torch.allclose(made(ground.inputs), whole[:, [4, 1]], atol=1e-6)
    assert parameters(ground.network) - parameters(made) == 4 * (WIDTH + 1)


def test_a_specialist_answers_for_its_group_and_costs_what_was_predicted(ground, members):
    assert [member.name for member in members] == ["specialist_0", "specialist_1"]
    for member, group in zip(members, HEAPS, strict=True):
        assert member.group == group
        with torch.no_grad():
            assert member.network(ground.inputs).shape == (len(ground.inputs), 3)
        costs = member.choice.costs
        assert parameters(member.network) == costs["parameters"]
        assert costs["parameters"] <= 0.6 * parameters(ground.network)
        assert flops(member.network, ground.inputs) == costs["flops"]
        weights = sum(t.nbytes for t in member.network.state_dict().values())
        assert weights == costs["bytes"]


def test_damage_is_that_of_the_distribution_within_the_group(ground, members, monkeypatch):
    """Found again from the whole network's logits, restricted by hand."""
    menus = []
    real = assembling.menu

    def spy(*given, **named):
        menus.append(real(*given, **named))
        return menus[-1]

    monkeypatch.setattr("understudy.blockwise.specialists.menu", spy)
    made_of(ground, {"parameters": 0.6 * parameters(ground.network)})
    label = "narrower_0.25"
    block = ground.parts.blocks[1].name
    for menu, group in zip(menus, HEAPS, strict=True):
        own = np.isin(ground.labels.numpy(), group)
        own[:LEARN] = False
        inputs = ground.inputs[torch.from_numpy(own)]
        stitched = replaced(ground.network, ground.parts, {block: ground.modules[block][label]})
        with torch.no_grad():
            goal, made = (
                net(inputs)[:, list(group)].double().log_softmax(1)
                for net in (ground.network, stitched)
            )
        wanted = float((goal.exp() * (goal - made)).sum(1).mean())
        found: Option = next(o for o in menu.options[block] if o.label == label)
        assert found.damage == pytest.approx(wanted, rel=1e-4, abs=1e-9)


def test_each_group_may_have_a_budget_of_its_own(ground):
    whole = parameters(ground.network)
    small, large = made_of(ground, [{"parameters": 0.4 * whole}, {"parameters": 0.9 * whole}])
    assert parameters(small.network) <= 0.4 * whole < parameters(large.network)
    with pytest.raises(ModelError, match="got 3"):
        made_of(ground, [{}, {}, {}])


def test_specialists_learn_from_their_rows_of_the_one_store(ground, members, tmp_path):
    teacher = stored(ground.network, ground.inputs, tmp_path / "store")
    asked = []
    hook = ground.network.register_forward_hook(lambda *_: asked.append(1))
    lesson = Lesson(
        teacher=teacher, batches=ground.batches, positions=np.arange(LEARN), classes=6,
        training=Training(epochs=6, batch_size=24, optimizer=Optimizer(learning_rate=0.003)),
    )  # fmt: skip
    made = tuned(members, lesson, told=ground.labels.numpy())
    hook.remove()
    assert not asked
    for old, new in zip(members, made, strict=True):
        assert new.group == old.group
        assert away(ground, new) < away(ground, old)
    with pytest.raises(DataError, match="give `told`"):
        tuned(members, lesson)


def away(ground, member):
    """KL to the teacher's distribution within the group, on the rows that were learned."""
    own = np.isin(ground.labels.numpy()[:LEARN], member.group)
    inputs = ground.inputs[:LEARN][torch.from_numpy(own)]
    with torch.no_grad():
        goal = ground.network(inputs)[:, list(member.group)].log_softmax(1)
        made = member.network.eval()(inputs).log_softmax(1)
    return float((goal.exp() * (goal - made)).sum(1).mean())


def test_a_group_without_rows_and_a_budget_out_of_reach_are_refused(ground):
    with pytest.raises(DataError, match=r"`specialist_1` needs two rows or more"):
        made_of(ground, {}, told=np.zeros(120, np.int64))
    with pytest.raises(ModelError, match=r"^`specialist_0`: "):
        made_of(ground, {"parameters": 3})
    with pytest.raises(ModelError, match=r"in none: \[5\]"):
        made_of(ground, {}, groups=[[0, 2], [1, 3, 4]])


def test_a_head_that_cannot_be_cut_is_refused(ground):
    with pytest.raises(ModelError, match=r"`blocks.0` is a Block"):
        head_cut(ground.network, ground.inputs, (0, 1), head="blocks.0")
    with pytest.raises(ModelError, match=r"`tail` is not there"):
        head_cut(ground.network, ground.inputs, (0, 1), head="tail")
    with pytest.raises(ModelError, match=r"`stem` gives 16 per row"):
        head_cut(ground.network, ground.inputs, (0, 1), head="stem")
    softened = nn.Sequential(ground.network, nn.Softmax(dim=1))
    with pytest.raises(ModelError, match="does not answer as before"):
        head_cut(softened, ground.inputs, (0, 1))


def test_a_head_within_a_block_is_refused(ground):
    torch.manual_seed(0)
    plain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 6)).eval()
    parts = partition(plain, ground.inputs, by=["2"], measure=False)
    assert parts.blocks[-1].paths[-1] == "3"
    with pytest.raises(ModelError, match="last layer is outside all blocks"):
        specialists(
            plain, parts, {}, {}, HEAPS, {}, ground.inputs, ground.labels.numpy()
        )  # fmt: skip
