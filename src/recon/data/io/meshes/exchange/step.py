"""Read .step and .stp files: Open CASCADE divides their exact surfaces into triangles."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from recon.data.io.file_checks import UnsupportedContentError, check_file, wrap_read_errors
from recon.data.io.meshes.gltf.reader import read_gltf
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.table import ReadOptions

MAX_STEP_BYTES = 2**28
"""Maximum size of a file, in bytes."""
MAX_SECONDS = 600
"""Maximum time for the division into triangles."""
SCRIPT = """
import sys, cascadio
path, target = sys.argv[1:]
sys.exit(cascadio.step_to_glb(path, target, 0.01, 0.2, tol_relative=True, use_parallel=False))
"""
"""Program that converts a file; edges deviate by 1 % of their length and 0.2 rad at most."""


def read_step(path: Path, options: ReadOptions) -> MeshContent:
    """Read the surfaces of all parts with their colors, in meters; z points up, as is usual.

    The conversion runs in a process of its own, since it prints messages and may fail in native
    code. Raises ValueError that names the file.
    """
    check_file(path, MAX_STEP_BYTES)
    if importlib.util.find_spec("cascadio") is None:
        raise ValueError(
            f"{path}: reading {path.suffix.lower()} files needs cascadio: "
            "pip install 'recon-pointcloud[step]'"
        )
    with wrap_read_errors(path, "STEP file"), tempfile.TemporaryDirectory() as folder:
        with path.open("rb") as file:
            if b"ISO-10303-21" not in file.read(4096):
                raise ValueError("it has no header of STEP")
        target = Path(folder) / "a.glb"
        _convert(path, target)
        content = read_gltf(target, options)
    note = "exact surfaces are divided into triangles, which deviate by up to 1 % of their edges"
    return content._replace(up="z", notes=(*content.notes, note))


def _convert(path: Path, target: Path) -> None:
    """Convert a file to .glb; raise ValueError if Open CASCADE cannot."""
    command = [sys.executable, "-P", "-c", SCRIPT, str(path.resolve()), str(target)]
    try:
        result = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=MAX_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedContentError(
            f"its division into triangles takes more than {MAX_SECONDS} s: split it, or export a "
            "mesh"
        ) from error
    if result.returncode or not target.is_file():
        raise ValueError("Open CASCADE finds no shapes in it")
