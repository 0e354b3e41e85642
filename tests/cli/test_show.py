"""Progress in plain lines, and nothing when asked for nothing."""

from understudy.cli import show


def test_plain_lines_say_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(show, "SECONDS_BETWEEN_LINES", 0.0)
    with show.Bars(quiet=False).track("labelling", 10, "rows") as tracker:
        tracker(4)
    told = capsys.readouterr().err
    assert "labelling: 4/10 rows" in told
    assert "s left" in told
    assert "labelling: 10 rows in" in told


def test_quiet_says_nothing(capsys):
    bars = show.Bars(quiet=True)
    bars.say("something")
    with bars.track("labelling", 10, "rows") as tracker:
        tracker(4)
    assert capsys.readouterr() == ("", "")
