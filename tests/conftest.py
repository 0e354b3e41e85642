"""Fixtures for all tests, and the rule that a data test is skipped only where there is no data."""

import os
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# How long an example takes says more of what else the machine does than of the code. A run that
# decides about a change draws the same examples every time; new ones are found at the desk.
settings.register_profile("understudy", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("understudy")

_jaxtyped = jaxtyping.jaxtyped


def _once(**options):
    """Check what a module defines, not what its functions define inside, anew at every call.

    Making the checks of such inner functions took a quarter of the time of many tests.
    """
    check = _jaxtyped(**options)
    return lambda made: made if "<locals>" in made.__qualname__ else check(made)


# The import hook looks the name up when a module of ours is run.
jaxtyping.jaxtyped = _once

DATA = os.environ.get("UNDERSTUDY_DATA")


@pytest.fixture(scope="session")
def shared_data():
    """The folder with the real data sets."""
    if not DATA or not Path(DATA).is_dir():
        pytest.skip("UNDERSTUDY_DATA names no folder with the real data sets")
    return Path(DATA)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.get_closest_marker("data") and DATA and Path(DATA).is_dir():
        report.outcome = "failed"
        report.longrepr = f"a data test was skipped although {DATA} exists: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter, config):
    # Read from the reports, since with several workers the tests run in other processes.
    skipped = [
        r for r in terminalreporter.stats.get("skipped", ()) if "data" in getattr(r, "keywords", ())
    ]
    terminalreporter.write_line(f"data tests skipped: {len(skipped)}")
