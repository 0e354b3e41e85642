import pytest
import torch
from torch import nn

from understudy.errors import ExportError
from understudy.export.float8 import float8_available, to_float8


def test_a_processor_does_not_multiply_eight_bit_floats():
    assert not float8_available("cpu")
    with pytest.raises(ExportError, match=r"capability 8\.9 or later .*`cpu` is none: use `int8`"):
        to_float8(nn.Linear(16, 16), device="cpu")


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not float8_available()
    with pytest.raises(ExportError, match="this machine has no CUDA device"):
        to_float8(nn.Linear(16, 16))


def test_an_old_device_is_named_with_what_it_can(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ExportError, match=r"`cuda` has 8\.0"):
        to_float8(nn.Linear(16, 16))


def test_a_network_without_fitting_layers_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert float8_available()
    with pytest.raises(ExportError, match="multiples of 16, but Linear has none"):
        to_float8(nn.Linear(16, 10))


@pytest.mark.gpu
def test_linear_layers_answer_nearly_the_same_in_eight_bit_floats():
    pytest.importorskip("torchao")
    if not float8_available():
        pytest.skip("no device that multiplies eight-bit floats")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16)).cuda()
    rows = torch.randn(32, 64, device="cuda")
    expected = net(rows)
    found = to_float8(net)(rows.bfloat16()).float()
    assert (found - expected).abs().mean() < 0.1 * expected.std()
