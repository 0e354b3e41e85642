"""How a Ray is found or started; that it leaves nothing behind is tried in test_ray_engine.py."""

import os
import signal

import pytest

from understudy.errors import RunError
from understudy.labels.ray_session import QUIET, session

ray = pytest.importorskip("ray")


@pytest.fixture
def started(monkeypatch):
    """No Ray: what it would have been started with, and what it saw then."""
    seen = []

    def init(**options):
        seen.append((options, {name: os.environ.get(name) for name in QUIET}))
        os.environ["RAY_SOMETHING"] = "of its own"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(2, b"Set by RAY_BACKEND_LOG_LEVEL\nsomething else\n")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append("shutdown"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    return seen


def test_one_is_started_on_this_machine_and_nobody_is_told(started, capfd):
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with session(cpus=3, object_store=10**8):
        assert os.environ["RAY_SOMETHING"] == "of its own"
    options, variables = started[0]
    assert options["address"] == "local"
    assert (options["num_cpus"], options["object_store_memory"]) == (3, 10**8)
    assert not options["include_dashboard"]
    assert not options["log_to_driver"]
    assert variables == QUIET
    assert started[1:] == ["shutdown"]
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is handler
    assert capfd.readouterr() == ("", "something else\n")


def test_a_cluster_that_is_named_is_joined(started, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with session(cpus=3, object_store=10**8):
        pass
    options, variables = started[0]
    assert set(options) == {"log_to_driver", "logging_level"}
    assert variables["RAY_USAGE_STATS_ENABLED"] == "1"
    assert started[1:] == ["shutdown"]


def test_one_that_runs_is_used_and_goes_on(started, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with session(cpus=3, object_store=10**8):
        pass
    assert started == []


def test_it_is_stopped_after_an_error_too(started):
    with pytest.raises(KeyboardInterrupt), session(cpus=1, object_store=10**8):
        raise KeyboardInterrupt
    assert started[1:] == ["shutdown"]
    assert "RAY_SOMETHING" not in os.environ


@pytest.mark.usefixtures("started")
def test_one_that_cannot_be_reached_is_told_with_the_remedy(monkeypatch, capfd):
    def init(**options):
        raise ConnectionError("no cluster at 10.0.0.1")

    monkeypatch.setattr(ray, "init", init)
    before = dict(os.environ)
    law = r"cannot be started \(no cluster at 10.0.0.1\): set RAY_ADDRESS"
    with pytest.raises(RunError, match=law), session(cpus=1, object_store=10**8):
        raise AssertionError("it was never started")
    assert dict(os.environ) == before
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"
