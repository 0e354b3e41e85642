"""The tables of the benchmark of language models, from its figures."""

from collections.abc import Mapping
from pathlib import Path

from harness import mode, paste

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def tables(figures: Mapping[str, float], *, seeds: int) -> str:
    """Both tables as Markdown."""
    trained = [
        "| model | parameters | bits per byte | agrees with the teacher |",
        "|---|---:|---:|---:|",
        f"| teacher | {figures['parameters_teacher']:,.0f} | "
        f"{figures['bits_per_byte_teacher']:.3f} |  |",
    ]
    for arm in ("student", "control"):
        agreed = f"{100 * figures[f'agreement_{arm}']:.1f} %"
        trained.append(
            f"| {arm} | {figures['parameters_student']:,.0f} | "
            f"{figures[f'bits_per_byte_{arm}']:.3f} | {agreed} |"
        )
    gain = (
        f"Gain {figures['bits_per_byte_gain']:+.4f} bits per byte (95 %: "
        f"{figures['gain_low']:+.4f} to {figures['gain_high']:+.4f}), {seeds} seeds, {mode()}."
    )
    steps = [
        "| a step of the student | ms | times cross entropy |",
        "|---|---:|---:|",
    ]
    for name, called in (
        ("cross_entropy", "next tokens alone"),
        ("stored", "stored labels, top 64 and the rest"),
        ("live", "the teacher asked at every step"),
        ("plain", "next tokens alone, PyTorch's own cross entropy, bare loop"),
    ):
        ratio = {
            "cross_entropy": 1.0,
            "stored": figures["epoch_over_cross_entropy"],
        }.get(name, figures.get(f"{name}_over_cross_entropy", 1.0))
        steps.append(f"| {called} | {figures[f'{name}_step_ms']:.0f} | {ratio:.2f} |")
    told = "\n".join([*trained, "", gain, "", *steps])
    if "trainer_over_plain" in figures:
        told += (
            f"\n\nIn Hugging Face's `Trainer` a step with stored labels takes "
            f"{figures['trainer_over_plain']:.2f} of one with its own cross entropy."
        )
    return told


def show(figures: Mapping[str, float], *, seeds: int, page: Path | None = PAGE) -> None:
    """Print the tables, and paste them into the manual."""
    text = tables(figures, seeds=seeds)
    print(text)
    if page is not None:
        paste(text, name="language_model", page=page)
