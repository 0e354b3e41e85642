"""Which way a loss over a vocabulary is computed, where Triton is and where it is not."""

import sys

import pytest
import torch

from losses.vocabulary_cases import student, told
from understudy.errors import MissingExtraError
from understudy.losses.vocabulary import Pieces, vocabulary_loss
from understudy.losses.vocabulary.compiled import choosing

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def forgets():
    """What was found out in another test is not what is so in the next."""
    yield
    choosing._installed.cache_clear()
    choosing._starts.cache_clear()


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    choosing._installed.cache_clear()


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.setattr(choosing, "_installed", lambda: True)
    monkeypatch.setattr(choosing, "_starts", lambda device: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def asking(kernels):
    hidden, head = student()
    pieces = Pieces(tokens=3, columns=5, kernels=kernels)
    return vocabulary_loss(hidden, head, told("dense")[1], pieces=pieces)


def test_by_itself_a_cpu_takes_pytorchs_operations_and_cuda_takes_triton(with_triton):
    assert not choosing.takes_kernels("auto", CPU)
    assert choosing.takes_kernels("auto", CUDA)
    assert not choosing.takes_kernels("plain", CUDA)
    assert choosing.takes_kernels("triton", CUDA)


def test_without_triton_all_is_plain(without_triton):
    assert not choosing.takes_kernels("auto", CUDA)
    assert not choosing.takes_kernels("plain", CUDA)
    assert asking("auto").loss == asking("plain").loss


def test_asking_for_triton_without_it_names_the_extra(without_triton):
    with pytest.raises(MissingExtraError, match=r"`triton`.*understudy\[triton\]"):
        asking("triton")


def test_triton_on_a_cpu_is_refused_unless_it_is_interpreted(with_triton, monkeypatch):
    with pytest.raises(ValueError, match=r"CUDA tensors, but got tensors on cpu: use `auto`, or"):
        asking("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choosing.takes_kernels("triton", CPU)
    assert not choosing.takes_kernels("auto", CPU)


def test_kernels_that_do_not_start_are_left_with_a_warning(monkeypatch):
    monkeypatch.setattr(choosing, "_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "understudy.losses.vocabulary.compiled.launching", None)
    with pytest.warns(RuntimeWarning, match="do not start on cuda:0 .*PyTorch's own operations"):
        assert not choosing.takes_kernels("auto", CUDA)
    assert not choosing.takes_kernels("auto", CUDA)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r"kernels.*'cuda'"):
        Pieces(tokens=1, columns=1, kernels="cuda")
