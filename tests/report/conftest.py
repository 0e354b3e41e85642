"""Records to draw. Their numbers are made up for the layout: they are no results of anything."""

import copy
from typing import Any

import numpy as np
import pytest

from understudy.report.gallery import choose_rows, png_data_uri
from understudy.report.record import RunRecord

Data = dict[str, Any]
SEEDS = [0, 1, 2, 3, 4]


def score(value: float, half: float, higher: bool = True) -> Data:
    return {"value": value, "low": value - half, "high": value + half, "higher_is_better": higher}


def costs(parameters: int, size: int, one: float, runtime: str = "onnxruntime") -> Data:
    detail = [
        {
            "batch": b,
            "threads": t,
            "median_ms": one * (1 + 0.1 * b) / t,
            "p95_ms": one * (1.4 + 0.1 * b) / t,
        }
        for b in (1, 32)
        for t in (1, 2)
    ]
    return {
        "parameters": parameters,
        "flops": parameters * 14,
        "bytes": size,
        "latency_ms": {"batch1": one, "batch32": one * 4.2, "detail": detail},
        "peak_memory_mb": 30 + size / 1e5,
        "runtime": runtime,
    }


def curves(rng: np.random.Generator, epochs: int = 40, seeds: int = 5) -> list[Data]:
    found = []
    for arm, top in (("student", 0.974), ("control", 0.961)):
        for seed in range(seeds):
            t = np.arange(1, epochs + 1)
            value = top - 0.6 * np.exp(-t / 4.5) + rng.normal(0, 0.004, epochs)
            loss = (
                (2.4 if arm == "student" else 1.1) * np.exp(-t / 8)
                + 0.08
                + rng.normal(0, 0.01, epochs)
            )
            points = [
                {
                    "epoch": int(e),
                    "step": int(e) * 18,
                    "training_loss": float(a),
                    "validation": float(b),
                }
                for e, a, b in zip(t, loss, value, strict=True)
            ]
            found.append({"arm": arm, "seed": seed, "points": points})
    return found


def confusion(rng: np.random.Generator, classes: int, right: float) -> list[list[int]]:
    table = rng.poisson(0.25 * (1 - right) * 36, (classes, classes))
    for a, b in ((8, 1), (9, 3), (4, 9), (7, 9), (3, 5)):
        table[a % classes, b % classes] += int(rng.poisson(90 * (1 - right)))
    np.fill_diagonal(table, 170)
    return table.tolist()


def reliability(bend: float) -> list[Data]:
    confidence = np.linspace(0.25, 0.98, 9)
    return [
        {
            "confidence": float(c),
            "accuracy": float(np.clip(c - bend * (1 - abs(2 * c - 1.2)), 0, 1)),
            "rows": int(r),
        }
        for c, r in zip(confidence, (9, 14, 22, 30, 41, 60, 95, 180, 1349), strict=True)
    ]


def soft_answers(
    rng: np.random.Generator, labels: np.ndarray, classes: int, noise: float
) -> np.ndarray:
    logits = rng.normal(0, noise, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += 3.0
    logits[np.arange(len(labels)), (labels + rng.integers(1, 4, len(labels))) % classes] += 2.0
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


def gallery(
    rng: np.random.Generator, names: list[str], images: np.ndarray, labels: np.ndarray
) -> list[Data]:
    answers = {
        arm: soft_answers(rng, labels, len(names), s)
        for arm, s in (("teacher", 0.4), ("student", 0.7), ("control", 1.2))
    }
    chosen = choose_rows(
        answers["teacher"], labels, answers["student"], answers["control"], classes=names
    )
    return [
        {
            "id": position,
            "label": names[labels[position]],
            "image": png_data_uri(images[position]),
            "values": None,
            "why": why,
            **{arm: p[position].tolist() for arm, p in answers.items()},
        }
        for position, why in chosen
    ]


def class_slices(rng: np.random.Generator, names: list[str]) -> list[Data]:
    found = []
    for name in names:
        gain, half = rng.normal(0.011, 0.014), rng.uniform(0.004, 0.018)
        found.append(
            {
                "name": name,
                "rows": int(rng.integers(30, 42)),
                "student": 0.96 + gain,
                "control": 0.96,
                "difference": gain,
                "low": gain - half,
                "high": gain + half,
            }
        )
    return found


def classification(names: list[str], images: np.ndarray, labels: np.ndarray) -> Data:
    rng = np.random.default_rng(7)
    models = {
        "teacher": {
            "scores": {
                "accuracy": score(0.9861, 0.0061),
                "nll": score(0.0531, 0.012, False),
                "calibration_error": score(0.0091, 0.003, False),
            },
            "per_seed": {"accuracy": [0.9861] * 5},
            **costs(336_842, 1_351_000, 0.412),
            "seconds": {"training": 74.2, "teacher_pass": None},
        },
        "student": {
            "scores": {
                "accuracy": score(0.9744, 0.0052),
                "nll": score(0.0912, 0.011, False),
                "calibration_error": score(0.0121, 0.003, False),
                "agreement": score(0.9789, 0.005),
            },
            "per_seed": {"accuracy": [0.9722, 0.975, 0.9756, 0.9733, 0.9761]},
            **costs(14_922, 61_300, 0.051),
            "seconds": {"training": 21.4, "teacher_pass": 0.8},
        },
        "control": {
            "scores": {
                "accuracy": score(0.9611, 0.0063),
                "nll": score(0.1433, 0.017, False),
                "calibration_error": score(0.0192, 0.004, False),
                "agreement": score(0.9611, 0.006),
            },
            "per_seed": {"accuracy": [0.9583, 0.9622, 0.9589, 0.9639, 0.9622]},
            **costs(14_922, 61_300, 0.051),
            "seconds": {"training": 19.9, "teacher_pass": None},
        },
        "student_int8": {
            "scores": {"accuracy": score(0.9728, 0.0055), "agreement": score(0.9772, 0.005)},
            "per_seed": {"accuracy": [0.9711, 0.9739, 0.9733, 0.9722, 0.9733]},
            **costs(14_922, 22_100, 0.038),
            "seconds": {"training": None, "teacher_pass": None},
        },
    }
    return {
        "format": 1,
        "name": "digits (made-up numbers)",
        "created": "2026-01-02T03:04:05+00:00",
        "understudy": "0.1.0",
        "environment": {
            "python": "3.11.7",
            "torch": "2.9.0",
            "onnxruntime": "1.23.0",
            "processor": "a made-up one, 2 cores",
            "threads": 2,
        },
        "recipe": {
            "name": "digits",
            "data": {"source": {"kind": "digits"}, "test": 0.2, "validation": 0.1},
            "teacher": {"model": {"kind": "cnn", "widths": [64, 128]}, "training": {"epochs": 40}},
            "student": {"model": {"kind": "cnn", "widths": [8, 16]}},
            "steps": [
                {
                    "kind": "distil",
                    "objective": [
                        {"kind": "hard_label", "weight": 0.1},
                        {"kind": "soft_target", "weight": 0.9, "temperature": 4.0},
                    ],
                }
            ],
            "budget": {"bytes": 64_000, "latency_ms": {"value": 0.1, "batch": 1, "threads": 1}},
            "seeds": 5,
        },
        "recipe_fingerprint": "3f5a1c9d0b7e2468",
        "task": {"name": "classification", "output": "logits", "classes": names, "targets": None},
        "primary": {"name": "accuracy", "higher_is_better": True, "unit": "share"},
        "rows": {"train": 1293, "labelled": 1293, "validation": 144, "test": 360},
        "seeds": SEEDS,
        "models": models,
        "deployed": {"seed": 4, "accuracy": 0.9761, "accuracy_int8": 0.9733},
        "budget": {
            "checks": [
                {"name": "bytes", "limit": 64_000, "measured": 61_300, "met": True},
                {
                    "name": "latency_ms (batch 1, 1 threads)",
                    "limit": 0.1,
                    "measured": 0.051,
                    "met": True,
                },
                {"name": "accuracy_kept", "limit": 0.98, "measured": 0.9881, "met": True},
            ],
            "within": True,
        },
        "verdict": {
            "word": "HELPED",
            "effect": 0.0133,
            "low": 0.0081,
            "high": 0.0187,
            "margin": 0.005,
            "seeds": 5,
            "rows": 360,
            "seeds_needed": None,
            "gap_closed": 0.532,
            "within_budget": True,
            "recommend": True,
            "sentence": "The teacher helped: with the teacher, accuracy is 1.33 points better "
            "than without (95% interval +0.81 to +1.87, 5 seeds, 360 rows).",
            "notes": ["The interval is over seeds and test rows together, at 95%."],
        },
        "curves": curves(rng),
        "confusion": {
            arm: confusion(rng, len(names), right)
            for arm, right in (("student", 0.97), ("control", 0.94), ("teacher", 0.99))
        },
        "calibration": {
            "student": reliability(0.02),
            "control": reliability(0.16),
            "teacher": reliability(-0.05),
            "student_int8": reliability(0.05),
        },
        "scatter": None,
        "slices": class_slices(rng, names),
        "gallery": gallery(rng, names, images, labels),
        "files": {
            "onnx": "runs/digits/export/student.onnx",
            "onnx_int8": "runs/digits/export/student.int8.onnx",
            "report": "runs/digits/report.html",
            "run": "runs/digits/run.json",
        },
        "warnings": ["3 test rows are equal to training rows and were dropped from training."],
    }


@pytest.fixture(scope="session")
def digits_data() -> Data:
    """A full record of ten classes, with real pictures of digits and made-up numbers."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)
    return classification([str(i) for i in range(10)], images[:400], digits.target[:400])


@pytest.fixture
def full(digits_data: Data) -> Data:
    return copy.deepcopy(digits_data)


@pytest.fixture
def small(full: Data) -> Data:
    """The full record with less of everything: drawn in no time."""
    full["curves"] = [c | {"points": c["points"][:4]} for c in full["curves"] if c["seed"] < 2]
    full["gallery"] = full["gallery"][:3]
    return full


@pytest.fixture
def hundred() -> Data:
    """A record of 100 classes and 24 rows with the noisiest pictures there are."""
    rng = np.random.default_rng(3)
    names = [f"kind of thing {i}" for i in range(100)]
    images = rng.integers(0, 256, (300, 200, 200, 3), dtype=np.uint8)
    data = classification(names, images, rng.integers(0, 100, 300))
    data["curves"] = curves(rng, epochs=200, seeds=10)
    return data


@pytest.fixture
def regression(full: Data) -> Data:
    """A record of a regression with two targets, whose primary score should be low."""
    rng = np.random.default_rng(5)
    full |= {
        "name": "bicycles (made-up numbers)",
        "task": {
            "name": "regression",
            "output": "values",
            "classes": None,
            "targets": ["bikes", "helmets"],
        },
        "primary": {"name": "rmse", "higher_is_better": False, "unit": ""},
        "confusion": None,
        "calibration": None,
        "deployed": {"seed": 1, "rmse": 41.2, "rmse_int8": None},
    }
    for name, value in (("teacher", 38.2), ("student", 41.4), ("control", 46.9)):
        full["models"][name]["scores"] = {
            "rmse": score(value, 1.8, False),
            "r2": score(1 - value / 180, 0.01),
        }
        full["models"][name]["per_seed"] = {"rmse": list(value + rng.normal(0, 0.8, 5))}
    del full["models"]["student_int8"]
    full["files"]["onnx_int8"] = None
    full["verdict"] |= {
        "effect": 5.5,
        "low": 3.2,
        "high": 7.9,
        "margin": 1.0,
        "gap_closed": 0.63,
        "sentence": "The teacher helped: with the teacher, rmse is 5.5 better than without.",
    }
    truth = rng.gamma(2, 80, 900)
    full["scatter"] = {
        arm: [[float(t), float(t + rng.normal(0, s))] for t in truth]
        for arm, s in (("student", 41), ("control", 47), ("teacher", 38))
    }
    full["slices"] = [
        {
            "name": f"season {i}",
            "rows": 90,
            "student": 41 + d,
            "control": 45.0,
            "difference": 4.0 - d,
            "low": 2 - d,
            "high": 6 - d,
        }
        for i, d in enumerate((-3.0, 0.5, 2.0, 7.5))
    ]
    full["gallery"] = [
        {
            "id": i,
            "label": f"{120 + 9 * i}, {30 + i}",
            "image": None,
            "why": "the student wins over the control",
            "values": {
                "temperature": 21.4,
                "wind": 3.1,
                "holiday": "no",
                "hour": 8,
                "weather": "clear",
                "month": 5,
                "year": 2011,
            },
            "teacher": [125.0 + 9 * i, 31.0],
            "student": [131.0 + 9 * i, 33.0],
            "control": [160.0, 40.0],
        }
        for i in range(6)
    ]
    for curve in full["curves"]:
        for point in curve["points"]:
            point["validation"] = 160 * (1.2 - point["validation"])
    return full


@pytest.fixture
def record(full: Data) -> RunRecord:
    return RunRecord(data=full)
