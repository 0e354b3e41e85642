"""Several students from one library of taught candidates."""

import numpy as np
import pytest
import torch

from blockwise.clan import LEARN, clan
from understudy.blockwise.family import family, lines, tuned, used
from understudy.blockwise.lessons import Lesson, stored
from understudy.errors import ModelError
from understudy.evaluate.cost import parameters
from understudy.recipe import Optimizer, Training

SHARES = {"small": 0.35, "middle": 0.6, "large": 0.85}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return clan(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def members(ground):
    whole = parameters(ground.network)
    budgets = {name: {"parameters": share * whole} for name, share in SHARES.items()}
    return family(ground.network, ground.parts, ground.modules, ground.menu, budgets)


def test_every_member_is_within_its_budget_and_costs_what_was_predicted(ground, members):
    whole = parameters(ground.network)
    assert [member.name for member in members] == list(SHARES)
    for member in members:
        made = parameters(member.network)
        assert made == member.choice.costs["parameters"] <= SHARES[member.name] * whole
    sizes = [parameters(member.network) for member in members]
    harms = [member.choice.damage for member in members]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert harms == sorted(harms, reverse=True)


def test_members_share_candidates_but_no_weights(ground, members):
    every = used(members)
    assert all(len(names) >= 1 for names in every.values())
    assert any(len(names) > 1 for names in every.values())
    for spot, names in every.items():
        assert spot[1] in ground.modules[spot[0]]
        assert names == tuple(m.name for m in members if m.choice.labels[spot[0]] == spot[1])
    places = [{p.data_ptr() for p in member.network.parameters()} for member in members]
    own = {p.data_ptr() for some in ground.modules.values() for m in some.values()
           for p in m.parameters()}  # fmt: skip
    for number, one in enumerate(places):
        assert not one & own
        assert all(not one & other for other in places[:number])


def test_members_are_tuned_on_one_store_and_copies(ground, members, tmp_path):
    asked = []
    hook = ground.network.register_forward_hook(lambda *_: asked.append(1))
    teacher = stored(ground.network, ground.inputs, tmp_path / "store")
    once = len(asked)
    before = [p.clone() for p in members[0].network.parameters()]
    lesson = Lesson(
        teacher=teacher, batches=ground.batches, positions=np.arange(LEARN), classes=6,
        training=Training(epochs=3, batch_size=24, optimizer=Optimizer(learning_rate=0.003)),
        held_out=np.arange(LEARN, len(ground.inputs)),
        validate=lambda answers, labels: float((answers.argmax(1) == labels).float().mean()),
    )  # fmt: skip
    made = tuned(members, lesson, folder=tmp_path / "tuned")
    hook.remove()
    assert once == 2
    assert len(asked) == once
    assert all(
        torch.equal(a, b) for a, b in zip(before, members[0].network.parameters(), strict=True)
    )
    for old, new in zip(members, made, strict=True):
        assert new.choice == old.choice
        assert len(new.fitted.points) == 3
        assert new.fitted.points[-1]["validation"] > 0.5
        assert kl(ground, new.network) < kl(ground, old.network) + 1e-6
    made_of = sorted(path.name for path in (tmp_path / "tuned").iterdir())
    assert made_of == sorted(f"{name}_0" for name in SHARES)


def kl(ground, network):
    inputs = ground.inputs[:LEARN]
    with torch.no_grad():
        own, goal = (m.eval()(inputs).log_softmax(1) for m in (network, ground.network))
    return float((goal.exp() * (goal - own)).sum(1).mean())


def test_a_budget_out_of_reach_names_its_member(ground):
    with pytest.raises(ModelError, match=r"^member `tiny`: "):
        family(
            ground.network, ground.parts, ground.modules, ground.menu, {"tiny": {"parameters": 3}}
        )
    with pytest.raises(ModelError, match="a budget for each member"):
        family(ground.network, ground.parts, ground.modules, ground.menu, {})


def test_the_table_has_a_line_per_member(members):
    table = lines(members)
    assert table[0].split()[:3] == ["member", "damage", "parameters"]
    assert [line.split()[0] for line in table[1:]] == list(SHARES)
    assert table[1].split()[2] == f"{parameters(members[0].network)}"
