"""Write what a program prints to the log file of its run too, without progress bars."""

import logging
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

LOG_FILE = "log.txt"
"""Name of the log file in a run's folder."""
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_REDRAW = re.compile(r"(?:\r|\x1b\[\d*[AK])")
"""Start of a redrawn line: what stands before it was shown for a moment only."""
_open_logs: list[Any] = []


class LoggedStream:
    """A text stream that also writes each finished line to a log file, as plain text.

    Of a line that is drawn several times, such as a progress bar, the log gets the last state.
    """

    def __init__(self, stream: Any, log: Any) -> None:
        self._stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            shown = _REDRAW.split(line.removesuffix("\r"))[-1]
            _write_line(self._log, _ESCAPE_SEQUENCE.sub("", shown))
        self._line = _REDRAW.split(self._line)[-1]
        return written if isinstance(written, int) else len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write_line(log: Any, line: str) -> None:
    if not log.closed:  # handlers of Python's logging may keep the stream after the run
        log.write(f"{line.rstrip()}\n")
        log.flush()


def write_log_line(line: str) -> None:
    """Write a line to the log of the current run only, e.g. progress that a terminal redraws."""
    for log in _open_logs:
        _write_line(log, line)


@contextmanager
def run_log(
    folder: Path, *, describe_error: Callable[[BaseException], str] = str, header: bool = True
) -> Iterator[None]:
    """Append what the block prints, warnings and its final error to the log file of a run.

    With `header`, it starts with the time and the command. An error is written with its traceback,
    and ends with the line of `describe_error`. Of several processes, call it in the first one only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("a", encoding="utf-8", errors="backslashreplace") as log:
        if header:
            command = shlex.join(sys.orig_argv or sys.argv)
            _write_line(log, f"--- {datetime.now():%Y-%m-%d %H:%M:%S}  {command}")
        _open_logs.append(log)
        stdout, stderr = sys.stdout, sys.stderr
        handler = logging.StreamHandler(log)
        handler.setLevel(logging.WARNING)
        logging.getLogger().addHandler(handler)
        sys.stdout, sys.stderr = LoggedStream(stdout, log), LoggedStream(stderr, log)
        try:
            yield
        except BaseException as error:
            _write_error(log, error, describe_error)
            raise
        finally:
            sys.stdout, sys.stderr = stdout, stderr
            logging.getLogger().removeHandler(handler)
            _open_logs.remove(log)


def _write_error(
    log: Any, error: BaseException, describe_error: Callable[[BaseException], str]
) -> None:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        reason = f" ({error})" if str(error) else ""
        _write_line(log, f"stopped by {type(error).__name__}{reason}")
        return
    for line in traceback.format_exception(error):
        _write_line(log, line.rstrip("\n"))
    _write_line(log, f"error: {describe_error(error)}")
