"""Progress: a bar in a terminal, elsewhere a line now and then."""

import io

import pytest
from rich.console import Console

from recon.utils import progress
from recon.utils.progress import show_status, track


def build_console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=100), stream


def test_items_and_attributes_are_those_of_the_iterable() -> None:
    class Loader(list[int]):
        dataset = "the data"

    tracked = track(Loader([3, 1, 2]), "reading", "files", console=build_console(terminal=False)[0])
    assert (len(tracked), tracked.dataset, [*tracked]) == (3, "the data", [3, 1, 2])


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 3), (60.0, 0)])
def test_lines_outside_a_terminal_keep_their_distance(
    seconds: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", seconds)
    console, stream = build_console(terminal=False)
    assert [*track(iter("abc"), "reading", "files", total=3, console=console)] == ["a", "b", "c"]
    start, *lines = stream.getvalue().splitlines()
    assert start == "reading ..."
    assert len(lines) == count
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"reading: {number} of 3 files, ")


def test_a_terminal_shows_a_bar() -> None:
    console, stream = build_console(terminal=True)
    assert [*track([1, 2], "reading", "files", console=console)] == [1, 2]
    assert "2/2" in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is shown again


@pytest.mark.parametrize("terminal", [True, False])
def test_status_names_the_work(terminal: bool) -> None:
    console, stream = build_console(terminal=terminal)
    with show_status("counting", console):
        pass
    assert "counting" in stream.getvalue()
