"""Reads a label store with NumPy alone, written from docs/label-store.md and from nothing else.

It takes one JSON object per line on standard input: `store` (a folder), `pairs` (id and view, in
any order) and `out` (an .npz file to write).
"""

import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"U8": "<u1", "I8": "<i1", "U16": "<u2", "U32": "<u4", "I64": "<i8"}
TYPES |= {"F16": "<f2", "F32": "<f4"}


def tensors(path: Path, entry: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a file and what its header says of it, after its checksums were compared."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    said = json.loads(header.pop("__metadata__")["understudy"])
    if entry is not None and entry["bytes"] != len(content):
        raise SystemExit(f"{path.name} has another size than the manifest says")
    if entry is not None and entry["sha256"] != sha256(content[:start]).hexdigest():
        raise SystemExit(f"{path.name} has another header than the manifest says")
    if said["data_sha256"] != sha256(content[start:]).hexdigest():
        raise SystemExit(f"{path.name} has other data than its header says")
    arrays = {}
    for name, tensor in header.items():
        here = slice(*(start + at for at in tensor["data_offsets"]))
        array = np.frombuffer(content[here], TYPES[tensor["dtype"]])
        arrays[name] = array.reshape(tensor["shape"])
    return arrays, said


class Store:
    """A complete store, verified whole when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        known = self.manifest["format"] == "understudy-labels" and self.manifest["version"] == 2
        if not (known and self.manifest["complete"]):
            raise SystemExit(f"{folder} is no complete store of version 2")
        self.index, _ = tensors(folder / self.manifest["index"]["file"], self.manifest["index"])
        lists = self.manifest["shards"]
        self.shards = []
        for number in range(len(lists["file"])):
            entry = {key: values[number] for key, values in lists.items()}
            arrays, said = tensors(folder / entry["file"], entry)
            if said["plan"] != self.manifest["plan"] or said["shard"] != number:
                raise SystemExit(f"{entry['file']} belongs to another store or place")
            self.shards.append(arrays)
        self.ends = np.cumsum(lists["rows"])
        self.constants = {
            name: tensors(folder / field["constants"], None)[0]
            for name, field in self.manifest["fields"].items()
            if field["constants"] is not None
        }

    def find(self, example: int, view: int) -> tuple[dict[str, Any], int]:
        """The shard of a row and the row's number in it."""
        ids, first = self.index["ids"], self.manifest["views"]["first"]
        place = int(np.searchsorted(ids, example))
        if place == len(ids) or ids[place] != example:
            raise SystemExit(f"no row has the id {example}")
        if not 0 <= view - first < self.manifest["views"]["count"]:
            raise SystemExit(f"there is no view {view}")
        row = place + (view - first) * len(ids)
        if "rows" in self.index:
            row = int(self.index["rows"][place, view - first])
        if row < 0:
            raise SystemExit(f"the row {example} was left out in view {view}")
        shard = int(np.searchsorted(self.ends, row, side="right"))
        arrays, row = self.shards[shard], row - (int(self.ends[shard - 1]) if shard else 0)
        assert (arrays["ids"][row], arrays["views"][row]) == (example, view)
        return arrays, row

    def positions(self, name: str, example: int, view: int) -> list[dict[str, Any]]:
        """What the teacher said in every position of a row."""
        arrays, row = self.find(example, view)
        field, here = self.manifest["fields"][name], range(row, row + 1)
        if field["ragged"]:
            here = range(*arrays[f"{name}::starts"][row : row + 2])
        parts = {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(f"{name}:")}
        return [decode(field, parts, at, self.constants.get(name, {})) for at in here]


def decode(field: dict[str, Any], parts: dict[str, Any], at: int, held: Any) -> dict[str, Any]:
    """Numbers as `values`, or outcomes as `ids`, `log_mass`, `rest` and perhaps `entropy`."""
    codec = field["codec"]
    if codec == "top_k":
        return listed(parts, at)
    if codec == "top_p":
        return top_p(parts, at, field["shape"][-1])
    if codec == "sampled":
        return sampled(parts, at, field["parameters"]["draws"])
    values = parts["values"][at]
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values = values.astype(np.float32)
    if codec == "int8":
        values = values * parts["scale"][at]
    if codec == "hidden":
        values = values @ held["weight"].T + held["bias"]
    return {"values": values}


def listed(parts: dict[str, Any], at: int) -> dict[str, Any]:
    mass, rest = parts["log_mass"][at].astype(np.float64), float(parts["rest"][at])
    if parts["log_mass"].dtype == np.float16:
        total = np.log(np.exp(mass).sum() + np.exp(rest))
        mass, rest = mass - total, rest - total
    return {"ids": parts["ids"][at].astype(np.int64), "log_mass": mass, "rest": rest}


def top_p(parts: dict[str, Any], at: int, classes: int) -> dict[str, Any]:
    head = int(parts["head"][at])
    whole, first = 2 ** ((head >> 5) + 10), (classes - 1).bit_length()
    (likeliest, rest), *others = pairs(parts, at, head & 31, first, 1)
    ids, steps, rest = [likeliest], [0], rest - 2
    for gap, weight in others:
        ids.append(gap + (ids[-1] + 1 if len(ids) > 1 else 0))
        steps.append(weight)
    steps[0] = whole - sum(steps) - rest
    with np.errstate(divide="ignore"):
        mass = np.log(np.array([*steps, rest]) / whole)
    return {"ids": np.array(ids), "log_mass": mass[:-1], "rest": mass[-1]}


def sampled(parts: dict[str, Any], at: int, draws: int) -> dict[str, Any]:
    width = int(parts["head"][at])
    found = np.array(list(pairs(parts, at, width, width, 0)), np.int64).reshape(-1, 2)
    ids, mass = np.cumsum(found[:, 0] + 1) - 1, np.log(found[:, 1] / draws)
    if "ids" in parts:
        ids = np.concatenate([parts["ids"][at].astype(np.int64), ids])
        mass = np.concatenate([parts["log_mass"][at], mass + parts["rest"][at]])
    entropy = float(parts["entropy"][at])
    return {"ids": ids, "log_mass": mass, "rest": -np.inf, "entropy": entropy}


def pairs(
    parts: dict[str, Any], at: int, width: int, first: int, least: int
) -> Iterator[tuple[int, int]]:
    """The gaps and weights in the body of a position."""
    lengths, anchor = parts["body:lengths"], at // 64
    start = int(parts["body:anchors"][anchor]) + int(lengths[anchor * 64 : at].sum(dtype=np.int64))
    bits = np.unpackbits(parts["body"][start : start + int(lengths[at])], bitorder="little")
    place = 8 * int(parts["unary"][at])
    runs = np.diff(np.flatnonzero(bits[:place]), prepend=-1) - 1
    for number, (high, extra) in enumerate(zip(runs[::2], runs[1::2], strict=True)):
        low, size = width if number else first, int(extra) + least
        gap, place = int(high) << low | whole_number(bits[place : place + low]), place + low
        weight, place = 1 << size | whole_number(bits[place : place + size]), place + size
        yield gap, weight


def whole_number(bits: Any) -> int:
    return sum(int(bit) << place for place, bit in enumerate(bits))


def answer(store: Store, wanted: list[list[int]]) -> dict[str, Any]:
    """What a store says of pairs of id and view, end to end."""
    arrays: dict[str, Any] = {}
    for name in store.manifest["fields"]:
        rows = [store.positions(name, *pair) for pair in wanted]
        said = [position for row in rows for position in row]
        arrays[f"{name}:positions"] = np.array([len(row) for row in rows])
        arrays[f"{name}:listed"] = np.array([len(p.get("ids", ())) for p in said])
        for part in said[0]:
            join = np.concatenate if part in ("ids", "log_mass") else np.stack
            arrays[f"{name}:{part}"] = join([position[part] for position in said])
    return arrays


if __name__ == "__main__":
    for line in sys.stdin:
        job = json.loads(line)
        np.savez(job["out"], **answer(Store(Path(job["store"])), job["pairs"]))
