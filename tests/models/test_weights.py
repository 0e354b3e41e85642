"""Weights from files and back: what does not fit is listed, and nothing is unpickled."""

import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from understudy.errors import ModelError
from understudy.models.weights import load_into, read_weights, save_weights, weights_fingerprint


def network(classes=3, *, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return set(first) == set(second) and all(torch.equal(first[n], second[n]) for n in first)


# --- there and back ------------------------------------------------------------------------------


def test_weights_come_back_bit_for_bit(tmp_path):
    module = network()
    module[1].running_mean.fill_(0.1)
    save_weights(module, tmp_path / "w.safetensors")
    other = network(seed=1)
    load_into(other, read_weights(tmp_path / "w.safetensors"), source="w")
    assert same(module, other)
    assert list(tmp_path.iterdir()) == [tmp_path / "w.safetensors"]


def test_the_same_weights_are_the_same_bytes(tmp_path):
    save_weights(network(), tmp_path / "a.safetensors")
    save_weights(network(), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_shared_strided_and_empty_tensors_are_written_out(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
            self.register_buffer("none", torch.empty(0, 2))
            self.register_buffer("count", torch.tensor(7))
            self.register_buffer("mask", torch.tensor([True, False]))

    module, other = Odd(), Odd()
    module.to(memory_format=torch.preserve_format)
    save_weights(module, tmp_path / "w.safetensors")
    load_into(other, read_weights(tmp_path / "w.safetensors"), source="w")
    assert same(module, other)
    assert other.first.weight is other.second.weight


def test_a_module_without_weights_can_be_written_and_read(tmp_path):
    save_weights(nn.Flatten(), tmp_path / "w.safetensors")
    load_into(nn.Flatten(), read_weights(tmp_path / "w.safetensors"), source="w")


def test_reading_changes_no_gradient_and_no_training_mode(tmp_path):
    module = network()
    save_weights(module, tmp_path / "w.safetensors")
    load_into(module, read_weights(tmp_path / "w.safetensors"), source="w")
    assert module.training
    assert all(p.requires_grad for p in module.parameters())


# --- foreign files -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_foreign_state_dict_is_read(tmp_path, suffix, zipped):
    module = network()
    path = tmp_path / f"w{suffix}"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=zipped)
    other = network(seed=1)
    load_into(other, read_weights(path), source="w")
    assert same(module, other)


@pytest.mark.parametrize("wrap", [
    lambda s: {"state_dict": s, "epoch": 3},
    lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    lambda s: {"model_state_dict": s, "loss": 0.5},
    lambda s: {"net": s, "acc": 93.1, "epoch": 199},
    lambda s: {"state_dict": {"model": s}},
    lambda s: {f"module.{n}": v for n, v in s.items()},
    lambda s: {"state_dict": {f"module.{n}": v for n, v in s.items()}, "arch": "resnet"},
    lambda s: {**s, "note": "not a tensor"},
])  # fmt: skip
def test_usual_wrappers_and_prefixes_are_seen_through(tmp_path, wrap):
    module = network()
    torch.save(wrap(dict(module.state_dict())), tmp_path / "w.pt")
    other = network(seed=1)
    load_into(other, read_weights(tmp_path / "w.pt"), source="w")
    assert same(module, other)


def test_the_prefix_goes_from_safetensors_too(tmp_path):
    module = network()
    named = {f"module.{n}": v for n, v in module.state_dict().items()}
    save_file(named, tmp_path / "w.safetensors")
    other = network(seed=1)
    load_into(other, read_weights(tmp_path / "w.safetensors"), source="w")
    assert same(module, other)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_prefix_that_is_the_modules_own_stays(tmp_path, suffix):
    class Wrapper(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.module = network(seed=seed)

    module, other, path = Wrapper(0), Wrapper(1), tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(module.state_dict(), path)
    else:
        save_weights(module, path)
    load_into(other, read_weights(path), source="w")
    assert same(module, other)


def test_half_precision_weights_are_taken_up(tmp_path):
    module = network()
    torch.save({n: v.half() if v.is_floating_point() else v
                for n, v in module.state_dict().items()}, tmp_path / "w.pt")  # fmt: skip
    other = network(seed=1)
    load_into(other, read_weights(tmp_path / "w.pt"), source="w")
    torch.testing.assert_close(other[0].weight, module[0].weight, atol=1e-3, rtol=1e-3)
    assert other[0].weight.dtype == torch.float32


# --- what does not fit ---------------------------------------------------------------------------


def test_what_is_missing_unexpected_and_of_another_shape_is_listed():
    weights = dict(network(classes=7).state_dict())
    del weights["0.bias"], weights["1.running_var"]
    weights["head.weight"] = torch.zeros(1)
    with pytest.raises(ModelError) as error:
        load_into(network(), weights, source="w.pt")
    assert str(error.value).splitlines() == [
        "the weights in w.pt do not fit the model (5 of 9 tensors do):",
        "  missing: 0.bias, 1.running_var",
        "  unexpected: head.weight",
        "  of another shape: 2.bias (file [7], model [3]), 2.weight (file [7, 5], model [3, 5])",
        "  build the model with the arguments it was trained with",
    ]


def test_a_long_list_is_cut_short_and_counted():
    with pytest.raises(ModelError, match=r"0.bias, .* and 1 more"):
        load_into(network(), {}, source="w.pt")


def test_nothing_is_changed_by_weights_that_do_not_fit():
    module = network()
    with pytest.raises(ModelError):
        load_into(module, network(classes=7, seed=1).state_dict(), source="w.pt")
    assert same(module, network())


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"missing.pt do not exist: correct the path"):
        read_weights(tmp_path / "missing.pt")
    with pytest.raises(ModelError, match="do not exist"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], 3, {"epoch": 3}, {}, {"state_dict": {"a": 1}}])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"must hold a state dict.*save `model.state_dict\(\)`"):
        read_weights(tmp_path / "w.pt")


# --- files that want to run code -----------------------------------------------------------------


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_nothing_is_run(tmp_path, how):
    path, mark = tmp_path / "evil.pt", tmp_path / "ran"
    content = {"state_dict": {"weight": torch.zeros(2)}, "extra": Evil(mark)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"extra": Evil(mark)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ModelError) as error:
        read_weights(path)
    text = str(error.value)
    assert "would run code from the file" in text
    assert "save `model.state_dict()` with safetensors" in text
    assert "weights_only" not in text  # nobody is told to switch the guard off
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(network(), tmp_path / "module.pt")
    with pytest.raises(ModelError, match="would run code from the file"):
        read_weights(tmp_path / "module.pt")


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    b"", b"hello world", b"<!DOCTYPE html><html>404</html>", b"\x80\x04]\x94.", b"PK\x03\x04",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n",
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_something_else_cannot_be_read(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read as weights \(.+\): copy it again"):
        read_weights(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_was_cut_off_cannot_be_read(tmp_path, share, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(network().state_dict(), path)
    else:
        save_weights(network(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"cannot be read as weights \(.+\): copy it again"):
        read_weights(path)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_damaged_file_is_our_error_or_other_weights_and_never_a_traceback(tmp_path, kind):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_weights(network(), path)
    else:
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(min(len(content), 1500))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            read_weights(path)
        except ModelError:
            refused += 1
    assert refused > 10


# --- fingerprints --------------------------------------------------------------------------------


def test_a_fingerprint_is_a_function_of_names_shapes_types_and_values():
    base = weights_fingerprint(network())
    assert base == weights_fingerprint(network())
    assert base != weights_fingerprint(network(seed=1))
    assert base != weights_fingerprint(network().double())
    assert base != weights_fingerprint(nn.Sequential(nn.Identity(), *network()))
    changed = network()
    changed[1].running_mean[0] += 1e-7
    assert base != weights_fingerprint(changed)
    counted = network()
    counted[1].num_batches_tracked += 1
    assert base != weights_fingerprint(counted)
    assert len(base) == 16


def test_a_fingerprint_does_not_depend_on_how_tensors_lie_in_memory():
    module = nn.Conv2d(3, 4, 3)
    before = weights_fingerprint(module)
    assert weights_fingerprint(module.to(memory_format=torch.channels_last)) == before
