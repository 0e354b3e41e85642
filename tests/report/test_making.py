"""The sections on how a student was made: there where a run has them, absent where it has not."""

from understudy.report.making import making
from understudy.report.page import write_report
from understudy.report.record import RunRecord

TITLES = ("Step by step", "What was cut", "Which blocks matter", "What they see")
SCORE = {"accuracy": {"value": 0.9, "low": 0.89, "high": 0.91, "higher_is_better": True}}
STEP = {"name": "1 distil", "scores": SCORE, "parameters": 10, "bytes": 40,
        "latency_ms": {"batch1": 0.1, "batch32": 0.2}, "zeros": 0.0}  # fmt: skip
PARTS = {
    "Step by step": {"steps": [STEP | {"name": "teacher"}, STEP]},
    "What was cut": {"plan": {"rows": [{"path": "blocks.0", "status": "kept", "parameters": [4, 2],
                                        "flops": [8, 4], "ms": [0.1, 0.05]}]}},
    "Which blocks matter": {"importance": {"by": "importance", "blocks": [
        {"path": "blocks.0", "score": 0.2, "low": 0.1, "high": 0.3, "kept": True},
        {"path": "blocks.1", "score": 0.1, "low": 0.0, "high": 0.2, "kept": False}]}},
    "What they see": {"feature_map": {"kind": "pca", "teacher": [[0.0, 1.0, "a"], [1.0, 0.0, "b"]],
                                      "student": [[0.1, 1.0, "a"], [1.0, 0.2, "b"]]}},
}  # fmt: skip


def record(*titles):
    data = {"format": 1, "primary": {"name": "accuracy", "higher_is_better": True, "unit": "%"}}
    for title in titles:
        data |= PARTS[title]
    return RunRecord(data=data)


def test_an_ordinary_run_has_none_of_these_sections():
    assert making(record()) == ""
    assert making(RunRecord(data={"format": 1, "steps": [], "plan": None, "importance": None,
                                  "feature_map": None})) == ""  # fmt: skip


def test_every_section_stands_alone():
    for title in TITLES:
        told = making(record(title))
        assert told.count("<section>") == 1
        assert f"<h2>{title}</h2>" in told


def test_all_sections_in_order():
    told = making(record(*TITLES))
    places = [told.index(f"<h2>{title}</h2>") for title in TITLES]
    assert places == sorted(places)
    assert "Nothing was chosen by these rows" in told
    assert "<details><summary>Every block</summary>" in told
    assert told.count("<figure") == 2


def test_the_report_of_a_whole_record_has_them(full, tmp_path):
    for titles in ((), TITLES):
        whole = RunRecord(data=full | dict(record(*titles).data) | {"primary": full["primary"]})
        write_report(whole, tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        for title in TITLES:
            assert (f"<h2>{title}</h2>" in page) == (title in titles), title
