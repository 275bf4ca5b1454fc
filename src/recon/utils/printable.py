"""Names that files give, as they may be shown: on a screen, on a page, in other files."""

import unicodedata
from collections.abc import Iterable

HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
"""Characters that steer a terminal, begin a line, or cannot be written; and those below."""
TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""They let text be read in another order than it stands."""


def strange(name: str) -> bool:
    """Tell whether a name holds characters that do something else than being shown."""
    return not (name.isascii() and name.isprintable()) and any(
        char in TURNING or unicodedata.category(char) in HIDDEN for char in name
    )


def check_names(names: Iterable[str], source: object) -> None:
    """Raise ValueError, which names the source, for a name that is not fit to be shown."""
    for name in names:
        if strange(name):
            raise ValueError(
                f"{source}: holds the name {name!a}, with characters that cannot be shown: "
                "rename it, or take it off the list"
            )


def spelled(text: str) -> str:
    """Return text with whatever steers a terminal written out; lines stay lines."""
    return "".join(
        char if char in "\n\t" or not strange(char) else ascii(char)[1:-1] for char in text
    )
