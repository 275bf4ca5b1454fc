"""Summarize what reading files omitted or assumed: one line for all files of the same kind."""

import re
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape

VARYING_PARTS = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d[\d,.]*(?:e[-+]?\d+)?")
"""Numbers and quoted names, in which notes of one kind differ."""


def note_kind(note: str) -> str:
    """Return a note without its numbers and quoted names."""
    return VARYING_PARTS.sub("#", note)


def print_notes(console: Console, notes: Iterable[tuple[str, str]]) -> None:
    """Print a line for each kind of note, given pairs of a file's name and a note about it."""
    for line in summarize_notes(notes):
        console.print(f"[bold]note[/bold] {escape(line)}", soft_wrap=True, highlight=False)


def summarize_notes(notes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a line for each kind of note, given pairs of a file's name and a note about it."""
    kinds: dict[str, tuple[str, str, set[str]]] = {}
    for name, note in notes:
        kinds.setdefault(note_kind(note), (name, note, set()))[2].add(name)
    for name, note, names in kinds.values():
        others = f" (also {len(names) - 1:,} of the other files)" if len(names) > 1 else ""
        yield f"{name}: {note}{others}"
