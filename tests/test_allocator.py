"""Freed memory is kept for the next step, and given back before memory is measured."""

import os
import subprocess
import sys

import pytest

from understudy import allocator

# Blocks of the C library's own: what else a tensor allocates may lie above one that is freed, and
# then nothing is given back before either.
SCRIPT = """
import ctypes, resource, sys
import torch
from understudy import allocator

C = ctypes.CDLL(None)
C.malloc.restype, C.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
C.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 4_000_000

def step():
    blocks = [C.malloc(SIZE) for _ in range(20)]
    for block in blocks:
        C.memset(block, 1, SIZE)
    for block in reversed(blocks):
        C.free(block)

def faults():
    for _ in range(4):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

torch.set_num_threads(1)
C.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault is a page of 4 kB
found = [faults(), allocator.keep_freed_memory(), faults()]
blocks = [torch.ones(2_000_000) for _ in range(20)]
del blocks
held = resident()
allocator.give_back_freed_memory()
print(*found, held - resident())
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator only")


def found(**environment):
    clean = {n: v for n, v in os.environ.items() if n not in allocator._OWN}
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True, check=True, text=True, env=clean | environment,
    ).stdout.split()  # fmt: skip
    return float(told[0]), told[1] == "True", float(told[2]), int(told[3])


@linux
def test_a_step_gets_the_memory_of_the_step_before():
    before, kept, after, given_back = found()
    assert kept
    # 80 MB in blocks of 4: about 20,000 pages of 4 kB, less what glibc keeps by itself.
    assert before > 5000, (before, after)
    assert after < 0.05 * before, (before, after)
    assert given_back > 100e6


@linux
def test_who_has_set_the_allocator_is_left_alone():
    _, kept, _, _ = found(MALLOC_TRIM_THRESHOLD_="200000")
    assert not kept


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    allocator.keep_freed_memory.cache_clear()
    assert not allocator.keep_freed_memory()
    allocator.give_back_freed_memory()
    allocator.keep_freed_memory.cache_clear()
