"""Names with characters that cannot be shown are refused, or written out."""

from pathlib import Path

import numpy as np
import pytest

from recon.cli.errors import one_line_errors
from recon.data.datasets.folder import ShapeFolder
from recon.utils.printable import (
    check_printable,
    escape_control_chars,
    format_count,
    has_control_chars,
    join_names,
)

STRANGE = ("a\x1b[31m", "a\nb", "\u202egpj", "\x9b2J", "a\u2028b", "a\udc80", "\u2066a")
PLAIN = ("", "a b", "Gr\u00f6\u00dfe", "\u6905\u5b50", "a\u200db", "caf\u0065\u0301")


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_names_with_control_characters_are_refused(name: str) -> None:
    assert has_control_chars(name)
    with pytest.raises(ValueError, match=r"^list\.csv: ") as caught:
        check_printable(["a", name], "list.csv")
    assert str(caught.value).isprintable()


def test_other_names_are_allowed() -> None:
    assert not any(map(has_control_chars, PLAIN))
    check_printable(PLAIN, "list.csv")


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "\u202egpj"], ids=ascii)
def test_folders_with_control_characters_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    np.save(tmp_path / name / "x.npy", np.ones((3, 3)))
    with pytest.raises(ValueError, match="control characters") as caught:
        ShapeFolder(tmp_path)
    assert str(caught.value).isprintable()


def test_control_characters_are_written_out_and_lines_stay_lines() -> None:
    assert escape_control_chars("a\x1b]\n\tb\u202e") == "a\\x1b]\n\tb\\u202e"
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise ValueError("x\x1b]0;y\x07.ply: not found")
    assert r"x\x1b]0;y\x07.ply: not found" in str(caught.value)


def test_counts_have_their_noun_in_the_right_number() -> None:
    counted = [format_count(count, "test shape") for count in (0, 1, 2, 1024)]
    assert counted == ["0 test shapes", "1 test shape", "2 test shapes", "1,024 test shapes"]


def test_long_lists_of_names_are_cut() -> None:
    assert join_names("abc", 3) == "a, b, c"
    assert join_names((name for name in "abcde"), 3) == "a, b, c and 2 more"
