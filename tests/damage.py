"""Damage single bytes of a small file, and read it by a reader of this library alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def assert_damage_is_read_or_named(path: Path, read: Callable[[Path], Any]) -> None:
    """Replace bytes of a file at random; each change is read, or an error names the file."""
    sound = path.read_bytes()

    @settings(
        max_examples=150, deadline=None, derandomize=True, database=None,
        suppress_health_check=[*HealthCheck],
    )  # fmt: skip
    @given(st.integers(0, len(sound) - 1), st.binary(max_size=4))
    def run(place: int, replacement: bytes) -> None:
        path.write_bytes(sound[:place] + replacement + sound[place + len(replacement) :])
        try:
            read(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017

    run()
