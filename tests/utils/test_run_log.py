"""The log file of a run has what was printed, without bars, and how it ended."""

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from recon.utils.run_log import LOG_FILE, LoggedStream, run_log, write_log_line


def read_log(folder: Path) -> list[str]:
    return (folder / LOG_FILE).read_text().splitlines()


def test_log_has_output_warnings_and_messages_of_both_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(f"Warning: {message}", file=sys.stderr)
        print("one\ntwo")
        warnings.warn("beware", stacklevel=1)
        logging.getLogger("a.library").warning("a message")
        write_log_line("for the log only")
    first, *lines = read_log(tmp_path)
    assert first.startswith("--- ")
    assert lines == ["one", "two", "Warning: beware", "a message", "for the log only"]
    printed = capsys.readouterr()
    assert printed.out == "one\ntwo\n"
    assert "for the log only" not in printed.err
    print("after the run")
    assert "after the run" not in read_log(tmp_path)


def test_a_second_run_appends(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with run_log(tmp_path):
            print(text)
    lines = read_log(tmp_path)
    assert [line for line in lines if not line.startswith("---")] == ["first", "second"]
    assert sum(line.startswith("---") for line in lines) == 2


def test_log_ends_with_the_traceback_and_the_message_of_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="wrong"),
        run_log(tmp_path, describe_error=lambda error: f"{error}, in one line"),
    ):
        raise ValueError("wrong")
    lines = read_log(tmp_path)
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "error: wrong, in one line"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_log_tells_that_a_run_was_stopped(stop: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(stop)), run_log(tmp_path):
        raise stop
    assert read_log(tmp_path)[-1].startswith(f"stopped by {type(stop).__name__}")


def test_of_a_bar_in_a_terminal_the_log_has_the_last_state() -> None:
    terminal, log = io.StringIO(), io.StringIO()
    stream: object = LoggedStream(terminal, log)
    console = Console(file=stream, force_terminal=True, width=60)  # type: ignore[arg-type]
    with Progress(console=console, auto_refresh=False) as progress:
        task = progress.add_task("work", total=3)
        for _ in range(3):
            progress.advance(task)
            progress.refresh()
        console.print("[bold]printed above the bar[/bold]")
    first, last = log.getvalue().splitlines()
    assert first == "printed above the bar"
    assert last.startswith("work ")
    assert "100%" in last
    assert "\x1b" in terminal.getvalue()
    assert "\x1b" not in log.getvalue()
