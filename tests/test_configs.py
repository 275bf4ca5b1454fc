"""Configurations, names, and calls of files from elsewhere: nothing of theirs is built or run."""

import os
import struct
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from recon.checkpoints.reader import extract_weights, read_checkpoint
from recon.checkpoints.run_config import read_config
from recon.cli.errors import one_line_errors
from recon.cli.multirun import main
from recon.data.datasets.folder import ShapeFolder
from recon.data.io.image_checks import decode_image
from recon.data.io.shape import read_shape
from recon.evaluate import _build_eval_transform
from recon.search import _build_text_teacher

HOME, TEACHERS = "recon.data.transforms", "recon.teachers"
SUBSET, CACHED = f"{HOME}.FarthestPointSample", f"{TEACHERS}.cached.CachedTextTeacher"
VIEWS = {
    "direct": "{_target_: os.system, command: CALL}",
    "nested": f"{{_target_: {SUBSET}, count: {{_target_: os.system, command: CALL}}}}",
    "created": f"{{_target_: {SUBSET}, count: \"${{oc.create:'{{_target_: os.system}}'}}\"}}",
    "told": f"{{_target_: {SUBSET}, count: '${{oc.env:HOME}}'}}",
    "imported": f"{{_target_: {HOME}.torch.os.system, command: CALL}}",
    "tag": "!!python/object/apply:os.system ['CALL']",
    "alias": f"{{_target_: {SUBSET}, count: [&a [1], *a]}}",
}
TEXTS = {
    "nested": f"{{_target_: {CACHED}, path: a, dim: [{{_target_: os.system, command: CALL}}]}}",
    "module": f"{{_target_: {TEACHERS}.cached.torch.os.system, command: CALL}}",
    "writes": f"{{_target_: {TEACHERS}.cached.write_cache, path: CALL, cache: 1}}",
    "hosted": f"{{_target_: {TEACHERS}.text.OpenClipTextTeacher, name: 'hf-hub:a/b', dim: 1}}",
    "unnamed": f"{{_target_: {TEACHERS}.text.OpenClipTextTeacher, _args_: ['hf-hub:a/b', 1]}}",
}


def run_with(folder: Path, text: str) -> Path:
    """A run with a configuration beside its checkpoint; its calls would leave a file `sprung`."""
    (folder / "config.yaml").write_text(text.replace("CALL", f"touch {folder / 'sprung'}"))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_that_wants_more_than_transforms_is_refused(kind: str, tmp_path: Path) -> None:
    told = {"view": None, "num_points": None}
    weights = run_with(tmp_path, f"view: {VIEWS[kind]}")
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        _build_eval_transform(OmegaConf.create(told | {"checkpoint": str(weights)}), "classify")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", TEXTS)
def test_a_teacher_that_wants_more_than_teachers_is_refused(kind: str, tmp_path: Path) -> None:
    weights = run_with(tmp_path, f"teacher: {{text: {TEXTS[kind]}}}")
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        _build_text_teacher(OmegaConf.create({"teacher": None, "checkpoint": str(weights)}), {})
    assert not (tmp_path / "sprung").exists()


def test_aliases_that_double_are_refused_soon(tmp_path: Path) -> None:
    pairs = zip("abcdefg", "bcdefgh", strict=True)
    lines = ["a: &a [1]", *(f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]" for x, y in pairs)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"config\.yaml: .*aliases"):
        read_config(tmp_path / "config.yaml")


def archive(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}X\x01\x00\x00\x00a" + pickled + b"s.")
        file.writestr("archive/version", "3\n")
    return path


LARGE = b"\x8a\x05" + (2**34).to_bytes(5, "little")
NUMBERS = b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") for i in range(1, 30_000))
CALLS = {
    "bytearray": b"cbuiltins\nbytearray\n" + LARGE + b"\x85R",
    "tensor": b"ctorch\nFloatTensor\n" + LARGE + b"\x85R",
    "scalar": b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
              b"X\x0b\x00\x00\x00V2000000000\x85R\x85R",
    "set": b"cbuiltins\nset\n](" + NUMBERS + b"e\x85R",
    "nested": b")" + b"\x85" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLS)
def test_calls_that_take_memory_or_time_are_refused(kind: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(
        ValueError, match=r"x\.pth: not .*(Unsupported|64 bits|in one another|of the type)"
    ):
        read_checkpoint(archive(tmp_path / "x.pth", CALLS[kind]))
    assert time.monotonic() - start < 5


def test_checkpoints_of_old_torch_are_read(tmp_path: Path) -> None:
    held = {"a": torch.ones(3)}
    torch.save(held, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(tmp_path / "x.pth")["a"], held["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 1j])
def test_weights_that_are_not_finite_are_named(value: complex, tmp_path: Path) -> None:
    held = {"a.weight": torch.zeros(3), "b.weight": torch.tensor([value, 0])}
    if value == 1e300:
        held["b.weight"] = torch.tensor([value], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"x\.pth: 'b\.weight' holds"):
        extract_weights(tmp_path / "x.pth", {"base_model": held})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_do_not_hold_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match=r"x\.pth"):
        read_checkpoint(tmp_path / "x.pth")
    os.mkfifo(tmp_path / "m.mtl")
    lines = ["mtllib m.mtl", "v 0 0 0", "v 1 0 0", "v 0 1 0", "usemtl a", "f 1 2 3"]
    (tmp_path / "x.obj").write_text("\n".join(lines))
    assert read_shape(tmp_path / "x.obj", 8).points.shape == (8, 3)


def test_pictures_that_other_programs_draw_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ValueError, match=r"x\.png: not a readable picture"):
        decode_image(content, tmp_path / "x.png")
    (tmp_path / "t.png").write_bytes(content)
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd t.png\n")
    lines = ["mtllib m.mtl", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt 0 0", "usemtl a"]
    (tmp_path / "x.obj").write_text("\n".join([*lines, "f 1/1 2/1 3/1"]))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=r"x\.obj: .*format EPS"):
        read_shape(tmp_path / "x.obj", 8)


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "\u202egpj", "\x9b2J"])
def test_names_that_steer_a_terminal_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    np.save(tmp_path / name / "x.npy", np.ones((3, 3)))
    with pytest.raises(ValueError, match="with characters that cannot be shown") as caught:
        ShapeFolder(tmp_path)
    assert str(caught.value).isprintable()


def glb(nodes: list[dict[str, Any]]) -> bytes:
    import json

    text = json.dumps({"asset": {"version": "2.0"}, "nodes": nodes}).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<IIII", 2, 20 + len(text), len(text), 0x4E4F534A)
    return b"glTF" + head + text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.glb", glb([{"children": [0]}])),
        ("x.glb", glb([{"children": [row + 1]} for row in range(999)] + [{}])),
        ("x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n9 0 1 2\n"),
        ("x.xyz", "0.1\uff12 0 0\n1 1 1\n".encode()),
        ("x.xyz", b"0 " * 9999 + b"\n"),
        ("x.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
                  b"property float z\nend_header\n0 0 0\n1 1 1\n2 2 2\n"),
    ],
)  # fmt: skip
def test_shapes_that_mean_something_else_are_named(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_shape(tmp_path / name, 8)


@pytest.mark.parametrize("results", ["[" * 99_999, "[]", '{"overall_accuracy": {"mean": "x"}}'])
def test_results_of_a_sweep_that_are_none_are_named(results: str, tmp_path: Path) -> None:
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("- a=1\n")
    (tmp_path / "0" / "results.json").write_text(results)
    with pytest.raises(SystemExit, match=r"error: .*results\.json: not a readable"):
        main([str(tmp_path)])


def test_an_error_is_printed_without_commands_to_the_terminal() -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise ValueError("x\x1b]0;y\x07.ply: not found")
    assert r"x\x1b]0;y\x07.ply: not found" in str(caught.value)
