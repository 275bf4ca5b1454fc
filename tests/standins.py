"""A harmless function for files that name code: it records its calls and does nothing else."""

from typing import Any

CALLS: list[tuple[Any, ...]] = []
"""Arguments of each call since the list was last cleared."""


def record_call(*arguments: Any, **options: Any) -> None:
    """Record that a file had this function called."""
    CALLS.append((*arguments, *options.values()))


class NamesFunction:
    """An object whose pickle asks for a call of `record_call`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return record_call, ("called",)
