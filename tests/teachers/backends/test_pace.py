"""Timing: turns, medians, and who drops out."""

import time

import torch

from understudy.teachers.backends import pace

CPU = torch.device("cpu")


def test_it_is_the_seconds_of_one_call():
    found = pace.seconds_of(lambda: time.sleep(0.01), device=CPU, least=0.05)
    assert 0.01 <= found < 0.1


def test_a_long_call_is_made_once():
    calls = []
    pace.seconds_of(lambda: calls.append(time.sleep(0.02)), device=CPU, least=0.01)
    assert len(calls) == 1


def test_arms_take_turns_and_medians_count(monkeypatch):
    times = {"a": iter([1.0, 9.0, 2.0]), "b": iter([3.0, 2.0, 1.5])}
    order = []

    def known(call, *, device, least):
        order.append(call())
        return next(times[order[-1]])

    monkeypatch.setattr(pace, "seconds_of", known)
    arms = {"a": lambda: "a", "b": lambda: "b"}
    assert pace.interleaved(arms, device=CPU, rounds=1) == {"a": 1.0, "b": 3.0}
    order.clear()
    times |= {"a": iter([1.0, 9.0, 2.0]), "b": iter([1.5, 1.4, 1.3])}
    assert pace.interleaved(arms, device=CPU, rounds=3) == {"a": 2.0, "b": 1.4}
    assert order == ["a", "b"] * 3


def test_who_is_far_behind_is_timed_no_more(monkeypatch):
    times = {"slow": 5.0, "fast": 1.0}
    order = []

    def known(call, *, device, least):
        order.append(call())
        return times[order[-1]]

    monkeypatch.setattr(pace, "seconds_of", known)
    arms = {name: (lambda name=name: name) for name in times}
    assert pace.interleaved(arms, device=CPU, rounds=3) == times
    assert order == ["slow", "fast", "fast", "fast"]


def test_on_a_slow_machine_there_are_fewer_rounds(monkeypatch):
    monkeypatch.setattr(pace, "LONGEST", 0.03)
    calls = []
    arms = {"a": lambda: calls.append(time.sleep(0.02))}
    found = pace.interleaved(arms, device=CPU, rounds=100)
    assert 0.02 <= found["a"] < 0.2
    assert len(calls) < 10
