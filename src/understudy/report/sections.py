"""The sections of the page, top to bottom: a heading, a line that says how to read it, figures."""

from collections.abc import Mapping

from understudy.report import wording
from understudy.report.calibration import reliability_chart, scatter_chart
from understudy.report.charts import learning, trade_off
from understudy.report.confusion import ARMS, confusion_changes, confusion_chart, shown_classes
from understudy.report.record import RunRecord
from understudy.report.slices import slice_chart
from understudy.report.tables import legend, side_by_side, timings


def section(title: str, lead: str, body: str) -> str:
    """A section of HTML; nothing where there is nothing to show."""
    if not body:
        return ""
    told = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{told}{body}</section>"


def evidence(record: RunRecord) -> str:
    """Everything that the verdict rests on, short of single rows."""
    return "".join(
        [
            section(
                "Side by side",
                "The same test rows for all; intervals in brackets, costs against the teacher's.",
                side_by_side(record),
            ),
            section(
                "Score against cost",
                "The stroke through a mark is the interval of its score. Costs are on logarithmic "
                "axes; what is shaded is outside the budget.",
                _costs(record),
            ),
            section(
                "Learning",
                "Thin: each seed. Thick: their mean. Losses of different objectives: compare their "
                "shapes, not their heights.",
                _learning(record),
            ),
            section(
                "Where the student wins and loses", _differences_lead(record), _differences(record)
            ),
            section("What was taken for what", _confusion_lead(record), _confusions(record)),
            section(
                "Predicted against measured",
                "On the dotted line the two are equal.",
                _scatter(record),
            ),
            section(
                "How far their certainty can be trusted",
                "On the dotted line a model is right as often as it is sure. Larger discs are more "
                "rows; “off by” is their mean distance from the line.",
                _calibration(record),
            ),
        ]
    )


def _panels(panels: Mapping[str, str], css: str = "") -> str:
    """Figures in a grid, by heading; what could not be drawn is left out."""
    drawn = "".join(
        f'<figure class="panel"><h3>{heading}</h3>{figure}</figure>'
        for heading, figure in panels.items()
        if figure
    )
    return f'<div class="panels {css}">{drawn}</div>' if drawn else ""


def _costs(record: RunRecord) -> str:
    size = trade_off(record, "bytes") or trade_off(record, "parameters")
    panels = _panels({"Size": size, "Latency": trade_off(record, "latency_ms")})
    table = timings(record)
    more = f"<details><summary>Every timing</summary>{table}</details>" if table else ""
    return panels + more


def _learning(record: RunRecord) -> str:
    name = wording.short(record.primary.replace("_", " "), 40)
    drawn = _panels(
        {
            "On the validation rows": learning(record, "validation", name),
            "Training loss": learning(record, "training_loss", "loss"),
        }
    )
    arms = {curve.get("arm") for curve in record.items("curves") if isinstance(curve, Mapping)}
    keys = legend(*(arm for arm in ("student", "control") if arm in arms))
    return f'<div class="keys">{keys}</div>{drawn}' if drawn else ""


def _differences(record: RunRecord) -> str:
    unit = ", in points" if record.unit == "share" else ""
    return _panels(
        {
            f"Student against control{unit}": slice_chart(record),
            "Confusions that changed most": confusion_changes(record),
        }
    )


def _differences_lead(record: RunRecord) -> str:
    lead = "A pale bar: the interval of the difference holds 0."
    if confusion_changes(record):
        lead += (
            " Squares are the control, discs the student: how often one class is taken for another."
        )
    return lead


def _confusion_lead(record: RunRecord) -> str:
    classes, shown = len(record.items("confusion", "student")), len(shown_classes(record))
    if shown < classes:
        return f"The {shown} of {classes} classes in the biggest confusions; darker is more rows."
    return "Only mistakes are coloured; darker is more rows."


def _confusions(record: RunRecord) -> str:
    return _panels({arm.capitalize(): confusion_chart(record, arm) for arm in ARMS}, "three")


def _scatter(record: RunRecord) -> str:
    return _panels({arm.capitalize(): scatter_chart(record, arm) for arm in ARMS}, "three")


def _calibration(record: RunRecord) -> str:
    names = {"teacher": "Teacher", "student": "Student", "control": "Control"}
    names |= {"student_int8": "Int8"}
    return _panels({name: reliability_chart(record, arm) for arm, name in names.items()}, "four")
