"""Show the progress of long work: a bar in a terminal, elsewhere a plain line now and then."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from recon.utils.run_log import write_log_line

SECONDS_BETWEEN_LINES = 10.0
"""Minimum time between two progress lines outside a terminal, in seconds."""


class ProgressCounter:
    """Count finished items of one task; `advance` redraws the bar, or prints a line if one is due.

    Nothing is drawn from a thread, because data loaders fork processes in the meantime.
    """

    def __init__(
        self, description: str, total: int, noun: str, console: Console | None = None
    ) -> None:
        self.description, self.total, self.done, self.noun = description, total, 0, noun
        self.console = console or Console()
        self._started = self._printed = time.monotonic()
        columns = (
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            noun,
            TimeElapsedColumn(),
            "elapsed,",
            TimeRemainingColumn(),
            "left",
        )
        self._progress = Progress(*columns, console=self.console, auto_refresh=False)
        self._task = TaskID(0)

    def __enter__(self) -> "ProgressCounter":
        self._started = self._printed = time.monotonic()
        if self.console.is_terminal:
            self._task = self._progress.add_task(self.description, total=self.total)
            self._progress.start()
        else:
            self.console.print(f"{self.description} ...", highlight=False, markup=False)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    def advance(self, count: int = 1) -> None:
        """Add finished items, and show them."""
        self.done += count
        line_is_due = time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES
        if line_is_due:
            self._printed = time.monotonic()
        if self.console.is_terminal:
            self._progress.advance(self._task, count)
            self._progress.refresh()
            if line_is_due:
                write_log_line(self._format_line())
        elif line_is_due:
            self.console.print(self._format_line(), soft_wrap=True, highlight=False, markup=False)

    def _format_line(self) -> str:
        elapsed = time.monotonic() - self._started
        left = elapsed * (self.total - self.done) / max(self.done, 1)
        counts = f"{self.done:,} of {self.total:,} {self.noun}"
        return f"{self.description}: {counts}, {elapsed:.0f} s elapsed, {left:.0f} s left"


class Tracked:
    """An iterable that shows its progress; all other attributes are those of the original."""

    def __init__(self, items: Any, counter: ProgressCounter) -> None:
        self._items, self._counter = items, counter

    def __iter__(self) -> Iterator[Any]:
        with self._counter as counter:
            for item in self._items:
                yield item
                counter.advance()

    def __len__(self) -> int:
        return self._counter.total

    def __getattr__(self, name: str) -> Any:
        return getattr(self._items, name)


def track(
    items: Iterable[Any],
    description: str,
    noun: str,
    *,
    total: int | None = None,
    console: Console | None = None,
) -> Any:
    """Iterate over items once and show how many are done; `noun` is their name in the plural.

    `total` is their number, if they have no length.
    """
    sized: Any = items
    total = len(sized) if total is None else total
    return Tracked(items, ProgressCounter(description, total, noun, console))


@contextmanager
def show_status(text: str, console: Console | None = None) -> Iterator[None]:
    """Show a spinner in a terminal while the block runs, elsewhere print one line."""
    console = console or Console()
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        console.print(f"{text} ...", soft_wrap=True, highlight=False, markup=False)
        yield
