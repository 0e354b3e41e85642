"""The fastest backend that answers alike; the paces are made here, on a clock of our own."""

import copy
import re
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.teachers.backends import (
    BACKENDS,
    Backend,
    alike,
    choose,
    choosing,
    chosen,
    forms,
    pace,
)

WIDTH = 3


class Clock:
    """Goes on when it is told to, and a little when it is read, as any clock."""

    now = 0.0

    def sleep(self, seconds):
        self.now += seconds

    def read(self):
        self.now += 1e-4
        return self.now


CLOCK = Clock()


def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, WIDTH)).eval()


def rows(count=8):
    return Batch(inputs=torch.randn(count, 4, generator=torch.Generator().manual_seed(1)))


def paced(seconds, *, off=0.0, pays_from=0.0):
    """A backend that takes that long per call, and whose first logit is off."""

    def make(made):
        def answer(given):
            CLOCK.sleep(seconds)
            found = made.plain(given)
            return found + off * torch.eye(WIDTH)[0]

        return answer

    return Backend(title=f"{1000 * seconds:.0f} ms", make=make, pays_from=pays_from)


def broken(made):
    raise RuntimeError("no compiler was found\nand so on")


@pytest.fixture
def backends(monkeypatch):
    """Lets a test say which backends there are, and how fast."""
    monkeypatch.setattr(pace, "perf_counter", CLOCK.read)

    def there_are(**entries):
        table = MappingProxyType(entries)
        for place in (choosing, chosen, forms):
            monkeypatch.setattr(place, "BACKENDS", table)

    return there_are


def ask(**options):
    return choose(module(), output="logits", batch=rows(), rounds=1, **options)


def test_the_fastest_is_taken(backends):
    backends(eager=paced(0.03), a=paced(0.01), b=paced(0.001), c=paced(0.02))
    found = ask()
    assert found.name == "b"
    assert found.tried["a"].rows_per_second < found.rows_per_second < 8 / 0.001
    assert found.difference == 0
    with torch.no_grad():
        expected = module()(rows().inputs)
    assert torch.equal(found.teacher(rows())["logits"], expected)


def test_what_answers_otherwise_is_out_however_fast_it_is(backends):
    backends(eager=paced(0.02), wrong=paced(0.001, off=0.5), right=paced(0.005, off=1e-5))
    found = ask()
    assert found.name == "right"
    assert 0 < found.difference < 1e-3
    wrong = found.tried["wrong"]
    assert wrong.difference == pytest.approx(0.5, rel=0.5)
    assert wrong.out == f"differs by {wrong.difference:.2g}"
    assert wrong.rows_per_second > found.rows_per_second


@pytest.mark.parametrize(("tolerance", "name"), [(1e-2, "eager"), (1, "off")])
def test_the_tolerance_decides_what_is_alike(backends, tolerance, name):
    backends(eager=paced(0.02), off=paced(0.001, off=0.1))
    assert ask(tolerance=tolerance).name == name


def test_what_cannot_be_had_is_out_with_its_reason(backends):
    backends(eager=paced(0.001), none=Backend(title="none", make=broken, pays_from=0.0))
    found = ask()
    assert found.name == "eager"
    assert "no compiler was found" in found.tried["none"].out
    assert found.tried["none"].rows_per_second is None
    assert "none" not in found.line()


def test_a_gain_that_may_be_noise_leaves_the_module_as_it_is(backends, monkeypatch):
    backends(eager=paced(0.0), other=paced(0.0))
    for faster, name in ((1.03, "eager"), (1.10, "other")):
        times = {"eager": 1.0, "other": 1 / faster}
        monkeypatch.setattr(choosing, "interleaved", lambda *_, times=times, **__: times)
        assert ask().name == name


def test_the_wanted_one_is_used_though_another_is_faster(backends):
    backends(eager=paced(0.001), a=paced(0.01), b=paced(0.001))
    found = ask(wanted="a")
    assert found.name == "a"
    assert set(found.tried) == {"eager", "a"}


def test_a_wanted_one_that_cannot_be_had_says_why(backends):
    backends(eager=paced(0.001), none=Backend(title="none", make=broken, pays_from=0.0))
    with pytest.raises(ModelError, match=r"backend `none`: no compiler was found.*use `auto`"):
        ask(wanted="none")


def test_a_wanted_one_that_answers_otherwise_says_by_how_much(backends):
    backends(eager=paced(0.001), wrong=paced(0.001, off=0.5))
    with pytest.raises(ModelError, match=r"backend `wrong`: differs by 0\.\d+; use `auto`, or"):
        ask(wanted="wrong")
    assert ask(wanted="wrong", tolerance=1.0).name == "wrong"


def test_a_backend_that_there_is_not_is_refused_with_a_suggestion():
    with pytest.raises(ModelError, match="got `onxruntime`: did you mean `onnxruntime`"):
        ask(wanted="onxruntime")


def test_what_would_take_longer_than_it_saves_is_not_even_made(backends):
    made = []

    def make(forms):
        made.append(forms)
        return forms.plain

    backends(eager=paced(0.01), other=Backend(title="other", make=make, pays_from=2.0))
    few = ask(rows=100)  # 8 rows take 10 ms
    assert few.name == "eager"
    assert not made
    assert "takes 0 s in eager" in few.tried["other"].out
    assert ask(rows=100_000).name == "other"
    assert made


def test_what_is_hopeless_here_is_tried_only_if_it_is_asked_for(backends):
    fast = replace(paced(0.001), hopeless=lambda device: f"no such instructions on {device.type}")
    backends(eager=paced(0.01), fast=fast)
    assert ask().tried["fast"].out == "no such instructions on cpu"
    assert ask().name == "eager"
    assert ask(wanted="fast").name == "fast"


@pytest.mark.parametrize(
    ("able", "kind", "expected"),
    [(True, "cpu", None), (False, "cpu", "no instructions"), (False, "cuda", None)],
)
def test_bfloat16_is_hopeless_without_instructions(monkeypatch, able, kind, expected):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able, raising=False)
    found = BACKENDS["bf16"].hopeless(torch.device(kind))
    assert found is None if expected is None else expected in found


def test_a_wanted_one_is_made_however_few_rows_there_are(backends):
    backends(eager=paced(0.01), other=paced(0.01, pays_from=1e9))
    assert ask(rows=1, wanted="other").name == "other"


def test_a_piece_that_is_faster_is_taken_for_all(backends, monkeypatch):
    """Rows in pairs are fast here, as they would be in a small cache."""
    monkeypatch.setattr(choosing, "PIECES", (2, 4))

    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = module()

        def forward(self, given):
            CLOCK.sleep(0.02 if len(given) > 2 else 0.001)
            return self.net(given)

    usual = {name: BACKENDS[name] for name in ("eager", "channels_last")}
    backends(**usual, again=paced(0.0))
    found = choose(Cache().eval(), output="logits", batch=rows(), rounds=1)
    assert (found.name, found.piece) == ("again", 2)
    assert " in pieces of 2, " in found.line()


def test_for_a_module_alike_only_what_was_nearly_the_fastest_is_tried_again(backends):
    made = []

    def counted(name, seconds, **options):
        backend = paced(seconds, **options)

        def make(forms):
            made.append(name)
            return backend.make(forms)

        return replace(backend, make=make)

    table = {"slow": 0.02, "fast": 0.001, "near": 0.00105}
    backends(
        eager=paced(0.03),
        wrong=counted("wrong", 0.0001, off=9.0),
        late=counted("late", 0.0001, pays_from=1e9),
        **{name: counted(name, seconds) for name, seconds in table.items()},
    )
    first = ask(rows=10_000)
    assert (first.name, first.close(1.1)) == ("fast", ("fast", "near"))
    made.clear()
    second = ask(rows=10_000, like=first)
    assert second.name == "fast"
    assert made == ["fast", "near"]
    assert set(second.tried) == {"eager", "fast", "near"}
    made.clear()
    assert ask(wanted="slow", like=first).name == "slow"
    assert made == ["slow"]


def test_what_answers_otherwise_for_a_module_alike_leaves_it_as_it_is(backends):
    backends(eager=paced(0.03), fast=paced(0.001))
    first = ask()
    backends(eager=paced(0.03), fast=paced(0.001, off=9.0))
    second = ask(like=first)
    assert second.name == "eager"
    assert "differs by" in second.tried["fast"].out


def test_pieces_are_not_searched_again_for_a_module_alike(backends, monkeypatch):
    backends(eager=paced(0.03), fast=paced(0.001))
    first = replace(ask(), size=4)
    monkeypatch.setattr(choosing._Trial, "_piece", None)
    assert ask(like=first).piece == 4


def test_alike_are_modules_of_the_same_layers():
    deeper = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3))
    assert alike(module(), deeper)
    assert not alike(module(), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)))


def test_the_line_names_the_paces_and_what_was_left_out(backends):
    backends(eager=paced(0.02), wrong=paced(0.002, off=0.5), right=paced(0.005))
    assert re.fullmatch(
        r"teacher: 5 ms, [\d,]+ rows/s \(20 ms \d+, 2 ms [\d,]+ but differs by 0\.\d+\)",
        ask().line(),
    )


def test_a_module_too_large_for_copies_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(choosing, "_COPIES", 10**15)
    found = ask()
    assert found.name == "eager"
    assert "copies of its weights would take" in found.tried["onnxruntime"].out


def test_a_teacher_that_cannot_answer_is_refused(backends):
    backends(eager=Backend(title="eager", make=broken, pays_from=0.0))
    with pytest.raises(ModelError, match="cannot answer these rows: no compiler was found"):
        ask()


def test_the_real_ones_leave_module_and_random_numbers_alone(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no compiler was found")

    monkeypatch.setattr(torch, "compile", refuse)
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, WIDTH)
    ).train()
    images = torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    before, random = copy.deepcopy(made.state_dict()), torch.get_rng_state()
    found = choose(made, output="logits", batch=Batch(inputs=images), rounds=1)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(part.training for part in made.modules())
    assert made[0].weight.is_contiguous()
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert set(found.tried) == set(BACKENDS)
    assert found.tried["compile"].out == "no compiler was found"
    for name in ("channels_last", "folded", "onnxruntime"):
        assert found.tried[name].out is None, found.tried[name]
        assert found.tried[name].rows_per_second > 0
    with torch.no_grad():
        expected = made.eval()(images)
    torch.testing.assert_close(found.teacher(Batch(inputs=images))["logits"], expected)


def test_values_are_held_to_their_own_measure():
    found = choose(module(), output="values", batch=rows(), wanted="onnxruntime", rounds=1)
    assert found.teacher.offers == {"values"}
    assert found.difference < 1e-3


@pytest.mark.parametrize(("seconds", "rounds", "least"), [(15, 1, 0.25), (300, 3, 1), (None, 3, 1)])
def test_a_short_pass_is_timed_for_a_shorter_while(backends, monkeypatch, seconds, rounds, least):
    backends(eager=paced(0.01), a=paced(0.002))
    asked, real = [], choosing.interleaved

    def interleaved(calls, **named):
        asked.append((named["rounds"], named["least"]))
        return real(calls, **named)

    monkeypatch.setattr(choosing, "interleaved", interleaved)
    # Eight rows take 10 ms.
    count = None if seconds is None else round(seconds / 0.01 * 8)
    choose(module(), output="logits", batch=rows(), rows=count)
    assert asked[-1] == (rounds, pytest.approx(least * pace.LEAST_SECONDS, rel=0.05))
