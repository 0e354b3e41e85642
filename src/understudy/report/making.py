"""How the student was made: its steps, what was cut off, which blocks matter, what it sees."""

from understudy.report.importance import importance_chart, importance_lead
from understudy.report.maps import feature_map, feature_map_keys
from understudy.report.record import RunRecord
from understudy.report.sections import section
from understudy.report.steps import plan_table, step_table


def making(record: RunRecord) -> str:
    """The sections on cuts, steps and features; nothing for what a run does not have."""
    return "".join(
        [
            section(
                "Step by step",
                "The same test rows after every step; in brackets the interval, and how many times "
                "less than the teacher. Nothing was chosen by these rows.",
                step_table(record),
            ),
            section(
                "What was cut",
                "As it was planned before any training; operations and milliseconds are for one "
                "row, the milliseconds predicted.",
                _folded(plan_table(record)),
            ),
            section("Which blocks matter", importance_lead(record), importance_chart(record)),
            section(
                "What they see",
                "Test rows by the features that the last layer reads: rows that lie together are "
                "alike to that model. The student's map is turned onto the teacher's.",
                _maps(record),
            ),
        ]
    )


def _folded(table: str) -> str:
    return f"<details><summary>Every block</summary>{table}</details>" if table else ""


def _maps(record: RunRecord) -> str:
    figures = "".join(
        f'<figure class="panel"><h3>{model.capitalize()}</h3>{drawn}</figure>'
        for model in ("teacher", "student")
        if (drawn := feature_map(record, model))
    )
    if not figures:
        return ""
    keys = f'<div class="keys">{feature_map_keys(record)}</div>'
    return f'{keys}<div class="panels">{figures}</div>'
