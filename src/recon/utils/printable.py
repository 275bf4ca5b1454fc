"""Names that files give, as they may be shown: on a screen, on a page, in other files."""

import unicodedata
from collections.abc import Iterable

CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Characters that steer a terminal, begin a line, or cannot be written; and those below."""
BIDI_CONTROLS = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""They let text be read in another order than it stands."""


def has_control_chars(name: str) -> bool:
    """Tell whether a name holds characters that do something else than being shown."""
    return not (name.isascii() and name.isprintable()) and any(
        char in BIDI_CONTROLS or unicodedata.category(char) in CONTROL_CATEGORIES for char in name
    )


def check_printable(names: Iterable[str], source: object) -> None:
    """Raise ValueError, which names the source, for a name that is not fit to be shown."""
    for name in names:
        if has_control_chars(name):
            raise ValueError(
                f"{source}: holds the name {name!a}, with characters that cannot be shown: "
                "rename it, or take it off the list"
            )


def escape_control_chars(text: str) -> str:
    """Return text with whatever steers a terminal written out; lines stay lines."""
    return "".join(
        char if char in "\n\t" or not has_control_chars(char) else ascii(char)[1:-1]
        for char in text
    )
