"""The table and the figures of the static encoder, from its finished parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Progress, mode, paste, record
from static_encoder_texts import pairs

from understudy.data.sentences import read_sts
from understudy.evaluate.resampling import Interval
from understudy.evaluate.similarity import spearman, spearman_kept

HEAD = ("encoder", "Spearman kept (95 %)", "SST-2", "subjectivity", "megabytes")


def report(
    progress: Progress, *, seeds: Sequence[int], count: int, shorter: Sequence[int], width: int
) -> None:
    """Print, record and paste."""
    parts = progress.finished()
    scores = read_sts(pairs("test")).scores
    whole = np.array(parts["teacher"]["test"])
    speed = parts["speed"]
    teacher = spearman(whole, scores)
    figures = {**speed, "spearman_teacher": teacher, "sentences": float(count)}
    figures["speedup"] = min(speed["speedup_batch_1"], speed["speedup_batch_32"])
    figures["load_ms"] = speed["load_ms_float32"]
    figures["explained_closed"] = parts["closed"]["explained"]
    figures |= {f"probe_{n}_teacher": v for n, v in parts["teacher"]["probes"].items()}
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|"]
    lines.append(_line("teacher", f"{teacher:.4f}", parts["teacher"], speed["megabytes_teacher"]))
    arms: dict[str, tuple[str, list[str], float | None]] = {
        "single": ("single tokens, averaged", ["single"], None),
        "closed": (f"closed form, {width} numbers", ["closed"], None),
        "": ("trained", [f"trained-{seed}" for seed in seeds], speed["megabytes_float32"]),
        "int8": ("trained, int8", [f"int8-{seed}" for seed in seeds], speed["megabytes_int8"]),
    }
    for size in shorter:
        names = [f"shorter-{size}-{seed}" for seed in seeds]
        arms[str(size)] = (f"trained, first {size} numbers", names, None)
    for key, (name, names, megabytes) in arms.items():
        cosines = np.stack([np.array(parts[n]["test"]) for n in names])
        found = spearman_kept(cosines, whole, scores)
        ending = f"_{key}" if key else ""
        figures[f"spearman_kept{ending}"] = found.value
        figures[f"spearman_kept{ending}_low"] = found.low
        figures[f"spearman_kept{ending}_high"] = found.high
        for probe in parts[names[0]].get("probes", {}):
            values = [parts[n]["probes"][probe] for n in names]
            figures[f"probe_{probe}{ending}"] = float(np.mean(values))
        lines.append(_line(name, _percent(found), _mean(parts, names), megabytes))
    record("static_encoder", figures, seeds=list(seeds), mode=mode())
    text = "\n".join(
        [
            *lines,
            "",
            f"{count:,} sentences, {len(seeds)} seeds, {mode()}. The teacher's row has its own "
            "correlation; the intervals are over seeds and pairs.",
            "",
            _speeds(speed),
        ]
    )
    print(text)
    paste(text, name="static_encoder", page=Path(__file__).parent.parent / "docs" / "benchmarks.md")


def _speeds(speed: dict[str, float]) -> str:
    lines = [
        "| sentences/s, one thread | torch | ONNX Runtime | static, NumPy | times the faster |",
        "|---|---:|---:|---:|---:|",
    ]
    for size in (1, 32):
        cells = [speed[f"{n}_per_second_batch_{size}"] for n in ("torch", "onnx", "student")]
        told = " | ".join(f"{cell:,.0f}" for cell in cells)
        lines.append(f"| batch {size} | {told} | {speed[f'speedup_batch_{size}']:.0f} |")
    lines += [
        "",
        f"From an empty process to a first vector: {speed['load_ms_float32']:.0f} ms in float32, "
        f"{speed['load_ms_int8']:.0f} ms in int8, beside importing NumPy. All in processor time.",
    ]
    return "\n".join(lines)


def _line(name: str, kept: str, part: dict[str, Any], megabytes: float | None) -> str:
    probes = part.get("probes", {})
    told = [f"{100 * probes[n]:.1f} %" if n in probes else "" for n in ("sst2", "subjectivity")]
    size = "" if megabytes is None else f"{megabytes:.1f}"
    return "| " + " | ".join([name, kept, *told, size]) + " |"


def _mean(parts: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The probes of several seeds, averaged."""
    probes = [parts[n]["probes"] for n in names if "probes" in parts[n]]
    if not probes:
        return {}
    return {"probes": {p: float(np.mean([one[p] for one in probes])) for p in probes[0]}}


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.2f} % ({100 * found.low:.2f} to {100 * found.high:.2f})"
