"""What is no number is refused by every cut, with the argument and what it got."""

import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from understudy.errors import ModelError
from understudy.students.wanted import check_number, check_whole

NONE = ["2", {}, [2], True, None]


@pytest.mark.parametrize("value", [*NONE, 1.5, 2.0, float("nan"), Fraction(2)], ids=repr)
def test_what_is_not_whole(value):
    with pytest.raises(ModelError) as caught:
        check_whole("rank", value, usual=8)
    assert (
        str(caught.value) == f"`rank` must be a whole number, but got {value!r}: write it as rank=8"
    )


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_what_is_no_number(value):
    with pytest.raises(ModelError) as caught:
        check_number("keep", value, usual=0.5)
    assert str(caught.value) == f"`keep` must be a number, but got {value!r}: write it as keep=0.5"


@pytest.mark.parametrize("value", [2, np.int8(2), torch.tensor(2)], ids=repr)
def test_whole_numbers_of_every_kind(value):
    check_whole("rank", value, usual=8)
    check_number("keep", value, usual=0.5)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), Fraction(1, 2)], ids=repr)
def test_fractions_of_every_kind(value):
    check_number("keep", value, usual=0.5)


# A process of its own: in this one types are checked at every call, before any cut sees a value.
CUTS = """
import json, torch
from torch import nn
from understudy.errors import ModelError
from understudy.students.depth import plan_depth
from understudy.students.lora import plan_lora
from understudy.students.low_rank import plan_low_rank
from understudy.students.sharing import plan_sharing
from understudy.students.width import plan_width

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.back = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, rows):
        return rows + self.back(self.wide(rows).relu())

network = nn.Sequential(*[Block() for _ in range(4)], nn.Linear(8, 3))
found = []
for plan, name, others in [
    (plan_depth, "keep", {}), (plan_sharing, "groups", {}),
    (plan_lora, "rank", {}), (plan_lora, "alpha", {}),
    (plan_width, "keep", {}), (plan_width, "parameters", {}),
    (plan_width, "round_to", {"keep": 0.5}),
    (plan_low_rank, "energy", {}), (plan_low_rank, "parameters", {}),
    (plan_low_rank, "min_rank", {"energy": 0.5}),
]:
    for value in ("2", {}, True):
        try:
            plan(network, torch.randn(4, 8), **{name: value}, **others)
            found.append([name, repr(value), ""])
        except ModelError as error:
            found.append([name, repr(value), str(error)])
for value in ([0, "x"], [0, 1.5]):
    try:
        plan_depth(network, torch.randn(4, 8), keep=value)
    except ModelError as error:
        found.append(["places", repr(value), str(error)])
print(json.dumps(found))
"""


def test_every_cut_looks_at_its_numbers():
    done = subprocess.run([sys.executable, "-c", CUTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 32
    for name, value, message in found[:30]:
        assert message.startswith(f"`{name}` must be a "), (name, value)
        assert f"number, but got {value}: write it as {name}=" in message
    for _, value, message in found[30:]:
        assert (
            message == f"positions to keep must be different ones of 0 to 3, but got keep={value}"
        )
