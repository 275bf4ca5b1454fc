"""Format names and counts, and reject or escape names with control characters."""

import unicodedata
from collections.abc import Iterable

CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, surrogates, and line and paragraph separators."""
BIDI_CONTROLS = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that change the direction in which text is displayed."""


def has_control_chars(name: str) -> bool:
    """Return whether a name contains control characters or characters that reorder text."""
    return not (name.isascii() and name.isprintable()) and any(
        char in BIDI_CONTROLS or unicodedata.category(char) in CONTROL_CATEGORIES for char in name
    )


def check_printable(names: Iterable[str], source: object) -> None:
    """Raise ValueError, which names the source, for a name with control characters."""
    for name in names:
        if has_control_chars(name):
            raise ValueError(
                f"{source}: contains the name {name!a}, which has control characters that cannot "
                "be shown: rename it, or remove its entry"
            )


def escape_control_chars(text: str) -> str:
    """Return text with its control characters escaped; newlines and tabs stay."""
    return "".join(
        char if char in "\n\t" or not has_control_chars(char) else ascii(char)[1:-1]
        for char in text
    )


def join_names(names: Iterable[str], max_shown: int) -> str:
    """Return names with commas between them, and the number of those after the first few."""
    listed = [*names]
    more = f" and {len(listed) - max_shown} more" if len(listed) > max_shown else ""
    return ", ".join(listed[:max_shown]) + more


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1: `1 epoch`, `1,024 points`.

    A noun of several words is given in the singular; its last word takes the `s`.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
