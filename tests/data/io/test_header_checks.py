"""Sizes that the headers of meshes announce are compared with the file before a parser reads it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon.data.io import header_checks
from recon.data.io.file_checks import wrap_read_errors
from recon.data.io.header_checks import check_obj
from recon.data.io.shape import read_shape

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def refuse(check: Callable[[Path], None], path: Path, content: bytes | str, reason: str) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=reason):
        check(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v 0 0 0\nv 1 0\nv 0 1 0 5\nf 1 2 3\n", "three numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 2 3\n", r"vertex.* 0\b"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 9 9 9\n", "vertices follow"),
        ("\0" * 5 + TRIANGLE, "text"),
    ],
)
def test_obj_files_that_would_be_misread_are_refused(
    text: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.obj"
    refuse(check_obj, path, text, reason)
    path.write_text("v 0 0 0\nv 1 0 0 1\nv 0 10 0 .1 .2 .3\nvn 0 0 1\nf -3//1 -2//1 -1//1\n")
    assert len(read_shape(path, 9).points) == 9


def test_an_obj_file_has_a_limited_number_of_materials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_checks, "MAX_MESH_PARTS", 3)
    materials = [f"usemtl m{number}\nf 1 2 3\n" for number in range(4)]
    refuse(check_obj, tmp_path / "x.obj", TRIANGLE + "".join(materials), "4 materials")
    (tmp_path / "x.obj").write_text(TRIANGLE + "".join(materials[:3]))
    check_obj(tmp_path / "x.obj")


SOUND: dict[str, tuple[Callable[[Path], None], bytes]] = {
    "x.obj": (check_obj, f"usemtl a\n{TRIANGLE}".encode()),
}


@pytest.mark.parametrize("name", SOUND)
def test_damaged_headers_are_accepted_or_named(name: str, tmp_path: Path) -> None:
    """Only the checks of this library see these bytes, never a parser below them."""
    check, sound = SOUND[name]
    path = tmp_path / name

    @settings(
        max_examples=100, deadline=None, derandomize=True, database=None,
        suppress_health_check=[*HealthCheck],
    )  # fmt: skip
    @given(st.integers(0, len(sound) - 1), st.binary(max_size=4))
    def run(place: int, replacement: bytes) -> None:
        path.write_bytes(sound[:place] + replacement + sound[place + len(replacement) :])
        try:
            with wrap_read_errors(path, "shape"):
                check(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017

    run()
