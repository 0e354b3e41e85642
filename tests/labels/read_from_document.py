"""Reads a label store with NumPy alone, written from docs/label-store.md and from nothing else.

It takes one JSON object per line on standard input: `store` (a folder), `pairs` (id and view, in
any order) and `out` (an .npz file to write).
"""

import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np

TYPES = {"U8": "<u1", "I8": "<i1", "U16": "<u2", "U32": "<u4", "I64": "<i8"}
TYPES |= {"F16": "<f2", "F32": "<f4"}


def tensors(folder, entry):
    """The arrays of a file and what its header says of it, after its checksums were compared."""
    content = (folder / entry["file"]).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) != entry["bytes"] or sha256(content[:start]).hexdigest() != entry["sha256"]:
        raise SystemExit(f"{entry['file']}: its size or header is not what the manifest says")
    header = json.loads(content[8:start])
    said = json.loads(header.pop("__metadata__")["understudy"])
    if sha256(content[start:]).hexdigest() != said["data_sha256"]:
        raise SystemExit(f"{entry['file']}: its data are not what its header says")
    arrays = {}
    for name, tensor in header.items():
        here = slice(*(start + at for at in tensor["data_offsets"]))
        array = np.frombuffer(content[here], TYPES[tensor["dtype"]])
        arrays[name] = array.reshape(tensor["shape"])
    return arrays, said


class Store:
    """A complete store, verified whole when it is opened."""

    def __init__(self, folder):
        self.manifest = manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        known = (manifest["format"], manifest["version"]) == ("understudy-labels", 2)
        if not (known and manifest["complete"]):
            raise SystemExit(f"{folder} is no complete label store of version 2")
        self.index, _ = tensors(folder, manifest["index"])
        self.ends, self.shards = np.cumsum(manifest["shards"]["rows"]), []
        for number in range(len(self.ends)):
            entry = {key: values[number] for key, values in manifest["shards"].items()}
            arrays, said = tensors(folder, entry)
            if (said["plan"], said["shard"]) != (manifest["plan"], number):
                raise SystemExit(f"{entry['file']} belongs to another store or place")
            self.shards.append(arrays)
        held = {name: field["constants"] for name, field in manifest["fields"].items()}
        self.constants = {name: tensors(folder, e)[0] for name, e in held.items() if e is not None}

    def find(self, example, view):
        """The shard of a row and the row's number in it."""
        ids, column = self.index["ids"], view - self.manifest["views"]["first"]
        place = int(np.searchsorted(ids, example))
        known = 0 <= column < self.manifest["views"]["count"] and example in ids[place : place + 1]
        row = place + column * len(ids) if known else -1
        if known and "rows" in self.index:
            row = int(self.index["rows"][place, column])
        if row < 0:
            raise SystemExit(f"there is no row {example} in view {view}")
        shard = int(np.searchsorted(self.ends, row, side="right"))
        arrays, row = self.shards[shard], row - int(self.ends[shard - 1] if shard else 0)
        assert (arrays["ids"][row], arrays["views"][row]) == (example, view)
        return arrays, row

    def positions(self, name, example, view):
        """What the teacher said in every position of a row."""
        arrays, row = self.find(example, view)
        field, here = self.manifest["fields"][name], [row]
        if field["ragged"]:
            here = range(*arrays[f"{name}::starts"][row : row + 2])
        parts = {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(f"{name}:")}
        return [decode(field, parts, at, self.constants.get(name)) for at in here]


def decode(field, parts, at, constants):
    """Numbers as `values`, or outcomes as `ids`, `log_mass`, `rest` and perhaps `entropy`."""
    if field["codec"] == "top_k":
        return top_k(parts, at)
    if field["codec"] == "top_p":
        return top_p(parts, at, field["shape"][-1])
    if field["codec"] == "sampled":
        return sampled(parts, at, field["parameters"]["draws"])
    if "codes" in parts:  # int8, of a hidden state too
        values = parts["codes"][at] * parts["scales"][at]
    elif parts["values"].dtype == np.uint16:
        values = (parts["values"][at].astype(np.uint32) << 16).view(np.float32)
    else:
        values = parts["values"][at].astype(np.float32)
    if field["codec"] == "hidden":
        values = values @ constants["weight"].T + constants.get("bias", 0)
        values = values * field["parameters"].get("scale", 1)
        cap = field["parameters"].get("soft_cap")
        values = values if cap is None else cap * np.tanh(values / cap)
    return {"values": values}


def top_k(parts, at):
    ids, mass, rest = (parts[name][at] for name in ("ids", "log_mass", "rest"))
    if mass.dtype == np.float16:
        mass, rest = mass.astype(np.float64), np.float64(rest)
        total = np.log(np.exp(mass).sum() + np.exp(rest))
        mass, rest = mass - total, rest - total
    some = np.isfinite(mass)  # all others are ruled out
    return {"ids": ids[some], "log_mass": mass[some], "rest": rest}


def top_p(parts, at, classes):
    head = int(parts["head"][at])
    whole, first = 2 ** ((head >> 5) + 10), (classes - 1).bit_length()
    (likeliest, rest), *others = pairs(parts, at, head & 31, first, 1)
    ids = np.array([likeliest, *after(gap for gap, _ in others)])
    steps = np.array([0, *(weight for _, weight in others), rest - 2])
    steps[0] = whole - steps.sum()
    with np.errstate(divide="ignore"):  # no step of rest is a mass of 0
        mass = np.log(steps / whole)
    return {"ids": ids, "log_mass": mass[:-1], "rest": mass[-1]}


def sampled(parts, at, draws):
    width = int(parts["head"][at])
    drawn = list(pairs(parts, at, width, width, 0))
    ids = np.array(after(gap for gap, _ in drawn), np.int64)
    mass = np.log(np.array([weight for _, weight in drawn]) / draws)
    if "ids" in parts:
        exact = top_k(parts, at)
        ids = np.append(exact["ids"], ids)
        mass = np.append(exact["log_mass"], mass + exact["rest"])
    return {"ids": ids, "log_mass": mass, "rest": -np.inf, "entropy": parts["entropy"][at]}


def after(gaps):
    """The classes, each one gap behind the class after the one before."""
    return np.cumsum([gap + 1 for gap in gaps]) - 1


def pairs(parts, at, width, first, least):
    """The gaps and weights in the body of a position."""
    lengths, anchor = parts["body:lengths"], at // 64
    start = int(parts["body:anchors"][anchor]) + int(lengths[anchor * 64 : at].sum(dtype=np.int64))
    bits = np.unpackbits(parts["body"][start : start + int(lengths[at])], bitorder="little")
    place = 8 * int(parts["unary"][at])
    runs = (np.diff(np.flatnonzero(bits[:place]), prepend=-1) - 1).tolist()
    low = first
    for high, extra in zip(runs[::2], runs[1::2], strict=True):
        size = extra + least
        gap, place = high << low | number(bits[place : place + low]), place + low
        weight, place = 1 << size | number(bits[place : place + size]), place + size
        yield gap, weight
        low = width


def number(bits):
    return sum(int(bit) << place for place, bit in enumerate(bits))


def answer(store, wanted):
    """What a store says of pairs of id and view, end to end."""
    arrays = {}
    for name in store.manifest["fields"]:
        rows = [store.positions(name, *pair) for pair in wanted]
        said = [position for row in rows for position in row]
        arrays[f"{name}:positions"] = [len(row) for row in rows]
        arrays[f"{name}:listed"] = [len(p.get("ids", ())) for p in said]
        for part in said[0]:
            join = np.concatenate if part in ("ids", "log_mass") else np.stack
            arrays[f"{name}:{part}"] = join([position[part] for position in said])
    return arrays


if __name__ == "__main__":
    for line in sys.stdin:
        job = json.loads(line)
        np.savez(job["out"], **answer(Store(Path(job["store"])), job["pairs"]))
