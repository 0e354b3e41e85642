"""The table and the figures of the text classifier, from its finished parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import mode, paste, record

from understudy.evaluate.quality import DRAWS, score_interval
from understudy.evaluate.resampling import Interval, pigeonhole
from understudy.evaluate.verdict import Verdict, judge

NAMES = {
    "teacher": "teacher",
    "student": "student",
    "student_int8": "student, weights in 8 bits",
    "control": "control, no teacher",
}


def report(parts: dict[str, Any], *, seeds: Sequence[int]) -> None:
    """Print, record and paste."""
    every, few = hits(parts["all"]), hits(parts["few"])
    deployed, teacher = every["student_int8"], every["teacher"][:1]
    share = kept(deployed, teacher)
    against, gain = verdict(every), verdict(few)
    timed, dev = parts["latency"], parts["dev"]
    figures = {
        "accuracy_kept": share.value,
        "accuracy_kept_low": share.low,
        "accuracy_kept_high": share.high,
        "accuracy_kept_dev": float(np.mean(dev["student"]) / dev["teacher"][0]),
        "accuracy_teacher": float(teacher.mean()),
        "accuracy_student": float(deployed.mean()),
        "accuracy_student_float": float(every["student"].mean()),
        "accuracy_control": float(every["control"].mean()),
        "gain": 100 * float(every["student"].mean() - every["control"].mean()),
        "gain_low": 100 * (against.low or 0.0),
        "accuracy_teacher_dev": dev["teacher"][0],
        "accuracy_student_dev": float(np.mean(dev["student"])),
        "bytes_ratio": timed["bytes"][0] / timed["bytes"][1],
        "bytes_teacher": timed["bytes"][0],
        "bytes_student": timed["bytes"][1],
        "latency_ratio": timed["ratio"],
        "teacher_ms": timed["teacher_ms"],
        "student_ms": timed["student_ms"],
        "few_label_gain": 100 * (gain.effect or 0.0),
        "few_label_gain_low": 100 * (gain.low or 0.0),
        "few_label_gain_high": 100 * (gain.high or 0.0),
        "accuracy_few_student": float(few["student"].mean()),
        "accuracy_few_control": float(few["control"].mean()),
        "static_ms": parts["numpy"]["ms"],
        "static_first_ms": parts["numpy"]["first_ms"],
        "accuracy_static": parts["numpy"]["accuracy"],
    }
    record("text_classifier", figures, seeds=seeds, mode=mode())
    text = "\n".join([*_table(parts, every, few), "", *_told(parts, figures, share, gain)])
    print(text)
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste(text, name="text_classifier", page=page)


def hits(part: dict[str, Any]) -> dict[str, np.ndarray]:
    """Which test rows each model got right, `[seeds, rows]`."""
    return {
        name: np.stack(
            [
                np.unpackbits(np.frombuffer(bytes.fromhex(one), np.uint8))[: part["test"]]
                for one in model["hits"]
            ]
        ).astype(float)
        for name, model in part["models"].items()
    }


def kept(student: np.ndarray, teacher: np.ndarray) -> Interval:
    """The student's accuracy as a share of the teacher's, over seeds and rows drawn together."""
    both = np.stack([student, np.broadcast_to(teacher, student.shape)], axis=2)
    return pigeonhole(both, lambda m: m[..., 0] / m[..., 1], draws=DRAWS, seed=0, level=0.95)


def verdict(found: dict[str, np.ndarray]) -> Verdict:
    """Student against control."""
    student, control = found["student"], found["control"]
    return judge(
        student, control, higher_is_better=True, margin=0.01, name="accuracy", unit="share"
    )


def _table(
    parts: dict[str, Any], every: dict[str, np.ndarray], few: dict[str, np.ndarray]
) -> list[str]:
    lines = ["| labels | model | accuracy (95 %) | bytes |", "|---|---|---:|---:|"]
    for name, found, part in (("all", every, parts["all"]), ("100", few, parts["few"])):
        for model, told in NAMES.items():
            if name == "100" and model == "teacher":
                continue
            span = score_interval(found[model])
            size = part["models"][model]["bytes"]
            lines.append(f"| {name} | {told} | {_percent(span)} | {size:,} |")
    return lines


def _told(
    parts: dict[str, Any], figures: dict[str, float], share: Interval, gain: Verdict
) -> list[str]:
    dev = 100 * figures["accuracy_teacher_dev"]
    return [
        f"The deployed student keeps {_percent(share)} of its teacher's accuracy "
        f"({100 * figures['accuracy_kept_dev']:.1f} % on GLUE's dev sentences, where the teacher "
        f"has {dev:.1f} %), in a file {figures['bytes_ratio']:.1f} times smaller, "
        f"{figures['latency_ratio']:.0f} times as fast for one sentence "
        f"({figures['teacher_ms']:.2f} and {figures['student_ms']:.3f} ms).",
        "",
        f"With 100 labels: {gain.sentence}",
        "",
        "Mean of token vectors and a linear layer, text to class with NumPy alone: "
        f"{figures['static_ms']:.3f} ms, {figures['static_first_ms']:.3f} ms for the first "
        f"texts of a process, {100 * figures['accuracy_static']:.1f} %.",
        "",
        f"{parts['all']['train']:,} training rows, {parts['few']['train']:,} with 100 labels; "
        f"{mode()}.",
    ]


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
