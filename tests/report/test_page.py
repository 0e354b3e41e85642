import re
from html.parser import HTMLParser

import numpy as np
import pytest

from understudy.report.page import MOST_BYTES, render, write_report
from understudy.report.record import RunRecord

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what was found."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def sections(text):
    return re.findall(r"<h2>([^<]+)", text)


def test_the_page_of_a_full_record_shows_everything(record):
    text = render(record)
    page = Page(text)
    assert sections(text) == [
        "Files to deploy ", "Budget", "Side by side", "Score against cost", "Learning",
        "Where the student wins and loses", "What was taken for what",
        "How far their certainty can be trusted", "Rows worth looking at", "Warnings",
        "How it was made",
    ]  # fmt: skip
    words = " ".join(page.words)
    for told in ("HELPED", "+1.33 points", "22×", "8.1×", "97.44%", "student.int8.onnx", "53%"):
        assert told in words
    assert page.tags.count("img") == 24
    assert page.tags.count("h1") == 1


@pytest.mark.parametrize("word", ["HELPED", "HURT", "NO DIFFERENCE", "UNDECIDED"])
def test_every_verdict_has_a_tone_and_a_sign(small, word):
    small["verdict"]["word"] = word
    text = render(RunRecord(data=small))
    assert f'class="hero {word.lower().replace(" ", "-")}"' in text
    assert f"<span>{word}</span></h1>" in text
    assert '<span class="sign" aria-hidden="true">' in text


def test_recommendation_budget_and_missing_seeds_are_said(small):
    small["verdict"] |= {"recommend": False, "seeds_needed": 14}
    small["budget"] = {
        "checks": [{"name": "bytes", "limit": 100, "measured": 200, "met": False}],
        "within": False,
    }
    text = render(RunRecord(data=small))
    assert "✗ not recommended" in text
    assert "✗ outside the budget" in text
    assert "about 14 seeds would decide" in text


def test_one_seed_is_told_how_many_it_takes_at_least(small):
    small["verdict"] |= {"seeds_needed": 3, "low": None, "high": None}
    text = render(RunRecord(data=small))
    assert "needs 3 seeds or more" in text
    assert "would decide</li>" not in text


def test_nothing_from_the_record_becomes_markup(small):
    evil = '<script>alert("1")</script><img src=x onerror=alert(1)>\'&'
    small["name"] = small["recipe_fingerprint"] = small["understudy"] = small["created"] = evil
    small["verdict"] |= {"sentence": evil, "notes": [evil], "word": evil}
    small["warnings"] = [evil]
    small["task"]["classes"] = [evil, *small["task"]["classes"][1:]]
    small["files"] = dict.fromkeys(small["files"], evil)
    small["recipe"] = small["environment"] = small["rows"] = {evil: evil, "list": [evil, {evil: 1}]}
    small["deployed"]["seed"] = evil
    small["seeds"] = [evil]
    for model in small["models"].values():
        model["scores"][evil] = {"value": 1.0, "low": None, "high": None}
        model["runtime"] = evil
    small["budget"]["checks"][0]["name"] = evil
    small["slices"][0]["name"] = evil
    for row in small["gallery"]:
        row |= {"id": evil, "label": evil, "why": evil, "values": {evil: evil}, "image": None}
    small["gallery"][0]["image"] = f'data:image/png;base64,AA"{evil}'
    small["gallery"][1]["image"] = "https://example.com/a.png"
    small["gallery"][2]["image"] = "javascript:alert(1)"
    page = Page(render(RunRecord(data=small)))
    assert "script" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.tags.count("img") == 1


def test_the_primary_score_may_have_any_name(small):
    name = "<b>top & best</b>"
    small["primary"]["name"] = name
    for model in small["models"].values():
        model["scores"] = {name: model["scores"]["accuracy"]}
        model["per_seed"] = {name: model["per_seed"]["accuracy"]}
    page = Page(render(RunRecord(data=small)))
    assert "b" not in page.tags or name in "".join(page.words)
    assert "&lt;" not in "".join(page.words)


def test_the_page_fetches_nothing_and_runs_nothing(record):
    text = render(record)
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "").replace('xmlns="http://www.w3.org/', "")
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    links = [v for _, name, v in page.attributes if name in ("src", "href", "data", "action")]
    assert all(link.startswith(("data:", "#")) for link in links)


def test_every_figure_says_what_it_is(record):
    text = render(record)
    figures = re.findall(r'<svg(?! class="window")[^>]*>(?:<title>[^<]+</title>)?', text)
    assert len(figures) > 30
    for figure in figures:
        assert 'aria-hidden="true"' in figure or ('role="img"' in figure and "<title>" in figure)
    assert "nan" not in re.sub(r"<[a-z]+>|data:[^\"]+", "", text).lower().split()


def test_a_hundred_classes_and_noisy_pictures_fit(hundred):
    text = render(RunRecord(data=hundred))
    assert len(text.encode()) < MOST_BYTES
    assert text.count("<img ") == 24
    assert "The 12 of 100 classes" in text


def test_the_gallery_gives_way_where_there_is_too_much(full):
    for row in full["gallery"]:
        row["image"] = "data:image/png;base64," + "A" * 200_000
    text = render(RunRecord(data=full))
    assert len(text.encode()) < MOST_BYTES
    shown = text.count("<img ")
    assert 0 < shown < 24
    assert f"{24 - shown} more in run.json" in text


def test_no_record_is_too_large_for_the_page(hundred):
    rng = np.random.default_rng(0)
    long = "<&>" * 3000
    hundred["name"] = hundred["verdict"]["sentence"] = long
    hundred["warnings"] = hundred["verdict"]["notes"] = [long] * 500
    hundred["recipe"] = {f"key {i}": long for i in range(300)}
    hundred["environment"] = hundred["recipe"]
    hundred["task"]["classes"] = [f"{long}{i}" for i in range(100)]
    hundred["slices"] = [row | {"name": f"{long}"} for row in hundred["slices"]] * 20
    hundred["curves"] = [
        {"arm": arm, "seed": seed, "points": [
            {"epoch": e, "step": e, "training_loss": float(v), "validation": float(v)}
            for e, v in enumerate(rng.normal(size=130))
        ]}
        for arm in ("student", "control") for seed in range(60)
    ]  # fmt: skip
    for model in hundred["models"].values():
        model["scores"] |= {f"{long}{i}": {"value": 1.0} for i in range(200)}
        model["per_seed"]["accuracy"] = [0.5] * 2000
        model["latency_ms"]["detail"] *= 200
    hundred["budget"]["checks"] *= 200
    for row in hundred["gallery"]:
        row |= {"label": long, "why": long, "values": {f"{long}{i}": long for i in range(50)}}
    assert len(render(RunRecord(data=hundred)).encode()) < MOST_BYTES


PARTS = (
    "name", "created", "understudy", "environment", "recipe", "recipe_fingerprint", "task",
    "primary", "rows", "seeds", "models", "deployed", "budget", "verdict", "curves", "confusion",
    "calibration", "scatter", "slices", "gallery", "files", "warnings",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("gone", ["missing", "empty"])
def test_any_part_may_be_missing(small, part, gone):
    if gone == "missing":
        del small[part]
    else:
        small[part] = type(small[part])() if small[part] else None
    Page(render(RunRecord(data=small)))


def test_a_record_with_nothing_in_it_has_a_page():
    text = render(RunRecord(data={"format": 1}))
    assert "NO VERDICT" in text
    assert sections(text) == []


def test_without_a_control_nothing_speaks_of_one(full):
    del full["models"]["control"]
    for part in ("confusion", "calibration"):
        del full[part]["control"]
    full["curves"] = [curve for curve in full["curves"] if curve["arm"] == "student"]
    full["slices"] = []
    full["verdict"] |= {"word": "UNDECIDED", "effect": None, "low": None, "high": None}
    full["verdict"] |= {"gap_closed": None, "sentence": "Undecided: no control was trained."}
    for row in full["gallery"]:
        row |= {"control": None, "why": "the 2 that looks like a 3"}
    page = Page(render(RunRecord(data=full)))
    words = " ".join(page.words)
    assert "control" not in words.replace("no control was trained", "")


def test_a_regression_has_scatter_and_no_classes(regression):
    text = render(RunRecord(data=regression))
    page = Page(text)
    found = sections(text)
    assert "Predicted against measured" in found
    assert "What was taken for what" not in found
    assert "How far their certainty can be trusted" not in found
    words = " ".join(page.words)
    for told in ("rmse ↓", "r2 ↑", "bikes", "temperature", "41.40", "+5.5"):
        assert told in words
    assert "4140" not in words


def test_latencies_that_were_not_measured_are_left_out(small):
    for model in small["models"].values():
        model["latency_ms"] = {"batch1": None, "batch32": None, "detail": []}
    text = render(RunRecord(data=small))
    assert "latency, 1 row" not in text
    assert "faster" not in text
    assert "Every timing" not in text


def test_half_a_surrogate_pair_does_not_keep_the_page_from_being_written(small, tmp_path):
    small["name"] = "broken \ud800 name"
    write_report(RunRecord(data=small), tmp_path / "report.html")
    assert "broken ? name" in (tmp_path / "report.html").read_text()


def test_the_page_is_written_whole_and_alone(record, tmp_path):
    write_report(record, tmp_path / "report.html")
    write_report(record, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == render(record)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
