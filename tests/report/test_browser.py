"""The page in a real browser: nothing is refused, broken, empty or too wide."""

import os
from pathlib import Path

import pytest

from understudy.report.page import write_report
from understudy.report.record import RunRecord

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    missing = [str(path) for path in (CHROMIUM, DRIVER) if not path.exists()]
    if missing and "CI" in os.environ:
        pytest.fail(f"CI must have a browser, but {', '.join(missing)} is not there")
    if missing:
        pytest.skip(f"{', '.join(missing)} is not there: install chromium and chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def opened(browser, data, folder, width, theme="light"):
    write_report(RunRecord(data=data), folder / "report.html")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((folder / "report.html").as_uri())
    return browser


@pytest.fixture
def crowded(small):
    """Models that can hardly be told apart."""
    for name, value in (("teacher", 0.9702), ("student", 0.9701), ("control", 0.97)):
        small["models"][name]["scores"]["accuracy"] = {"value": value, "low": 0.96, "high": 0.98}
        small["models"][name] |= {"bytes": 60_000, "latency_ms": {"batch1": 0.05}}
    small["verdict"] |= {"effect": 0.0001, "low": -0.0009, "high": 0.0011, "margin": 0.00005}
    return small


EMPTY = """
return [...document.querySelectorAll('svg')].filter(s => {
  if (s.closest('details:not([open])')) return false;
  const box = s.getBoundingClientRect();
  return !(box.width > 0 && box.height > 0);
}).length"""
BROKEN = "return [...document.images].filter(i => !(i.naturalWidth > 0)).length"
OVERHANG = """
const wide = document.documentElement.clientWidth;
return [...document.querySelectorAll('main *')].filter(e =>
  e.getBoundingClientRect().right > wide + 0.5 || e.getBoundingClientRect().left < -0.5
).map(e => e.outerHTML.slice(0, 120))"""
CLASHES = """
const clashes = [];
for (const svg of document.querySelectorAll('svg.wide, svg.small')) {
  const texts = [...svg.querySelectorAll('text')].map(
    t => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([word, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 4) clashes.push(word + ' / ' + other);
  }));
}
return clashes"""


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("kind", ["full", "hundred", "regression", "crowded"])
def test_the_page_is_sound(browser, request, tmp_path, kind, width):
    page = opened(browser, request.getfixturevalue(kind), tmp_path, width)
    severe = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    assert page.execute_script(BROKEN) == 0
    assert page.execute_script(EMPTY) == 0
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script(OVERHANG) == []
    assert page.execute_script(CLASHES) == []


CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => {
  v = v / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const card = light(getComputedStyle(document.querySelector('.tile')).backgroundColor);
const look = (s, p) => [s, light(getComputedStyle(document.querySelector(s))[p])];
return [look('.sentence', 'color'), look('.quiet', 'color'), look('h1', 'color'),
  ...['teacher', 'student', 'control', 'student_int8'].map(m => look('svg .label.' + m, 'fill'))
].map(([s, l]) => [s, (Math.max(l, card) + 0.05) / (Math.min(l, card) + 0.05)])"""


@pytest.mark.parametrize("word", ["HELPED", "HURT", "NO DIFFERENCE", "UNDECIDED"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, small, tmp_path, theme, word):
    small["verdict"]["word"] = word
    page = opened(browser, small, tmp_path, 1280, theme)
    for what, contrast in page.execute_script(CONTRAST):
        assert contrast >= 3.8 if "label" in what else contrast >= 4.5, (what, contrast)


def test_dark_is_dark_and_paper_is_white(browser, small, tmp_path):
    page = opened(browser, small, tmp_path, 1280, "dark")
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert page.execute_script(ground) == "rgb(15, 18, 21)"
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert page.execute_script(ground) == "rgb(250, 250, 248)"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
