"""The kernels compile to machine code of NVIDIA's GPUs; that needs no GPU."""

import os

import pytest

from understudy.losses.vocabulary.compiled import choosing

READY = choosing._installed() and os.environ.get("TRITON_INTERPRET") != "1"
pytestmark = pytest.mark.skipif(
    not READY, reason="needs Triton, and its compiler: make test-triton"
)
if READY:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from understudy.losses.vocabulary.compiled import kernels

AMPERE, HOPPER = 80, 90
NUMBERS = {"ids", "goal_rows", "labels"}
VALUES = {"tile", "sums", "numbers", "found", "values", "means"}
VALUES |= {"own_total", "goal_total", "hard_total"}
CAPS = {"CAPPED": True, "GOAL_CAPPED": True, "COOLED": True, "BLOCK": 4096}


def compiled(kernel, target, constants, *, dtype="fp32", goal="bf16", warps=8):
    signature = {}
    for name in kernel.arg_names:
        kind = f"*{dtype}" if name in VALUES else "*i64" if name in NUMBERS else "i32"
        kind = f"*{goal}" if name == "goal" else kind
        signature[name] = "constexpr" if name in constants else kind
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    gpu = GPUTarget("cuda", target, 32)
    return triton.compile(source, target=gpu, options={"num_warps": warps}).asm


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("target", [AMPERE, HOPPER])
@pytest.mark.parametrize("number", range(1, 6))
def test_what_weighs_compiles(number, target):
    assert compiled(kernels.weigh, target, {"KIND": number, **CAPS})["cubin"]


@pytest.mark.parametrize("target", [AMPERE, HOPPER])
@pytest.mark.parametrize("number", range(7))
def test_what_gives_the_slope_compiles_and_stays_in_float32(number, target):
    made = compiled(kernels.slope, target, {"KIND": number, "HARD": True, **CAPS})
    assert made["cubin"]
    assert ".f64" not in made["ptx"]


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_what_looks_picks_and_puts_compiles(dtype):
    flags = {"TOLD": True, "HARD": True, "POOLING": True, **CAPS, "BLOCK": 2048}
    assert compiled(kernels.look, HOPPER, flags, dtype=dtype)["cubin"]
    for added in (True, False):
        constants = {"ADDED": added, "K": 8}
        assert compiled(kernels.put, HOPPER, constants, dtype=dtype, warps=1)["cubin"]
    assert compiled(kernels.pick, HOPPER, {"CAPPED": True, "K": 8}, dtype=dtype, warps=1)["cubin"]
