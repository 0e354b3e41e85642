import numpy as np

from understudy.deployed import available_threads, summarise, time_calls


def test_the_median_and_the_tail_are_those_of_the_times():
    latency = summarise([1.0, 2.0, 3.0, 4.0, 100.0], batch=4, threads=2)
    assert latency.median_ms == 3.0
    assert np.isclose(latency.p95_ms, 4.0 + 0.8 * 96.0)
    assert (latency.batch, latency.threads, latency.runs) == (4, 2, 5)


def test_calls_for_warming_up_are_made_but_not_counted():
    calls = []
    times = time_calls(lambda: calls.append(1), seconds=0.0, warm_up=4)
    assert len(times) == 5
    assert len(calls) == 9


def test_there_is_at_least_one_thread():
    assert available_threads() >= 1
