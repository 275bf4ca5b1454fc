"""Compare the CPU time of reading shape files with that of another version of the library.

git worktree add <folder> <commit>
python scripts/bench/reading.py --against <folder>/src

Writes 2,000 small files of eleven kinds by other libraries, reads all of them with both versions in
turn, and prints the ratio of the CPU times for each format. Above 1, this version is faster.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import trimesh
from plyfile import PlyData, PlyElement
from rich.console import Console
from rich.table import Table

ROUNDS = 3
THIS_VERSION = Path(__file__).parents[2] / "src"
READ_ALL = """
import json, sys, time
from pathlib import Path
from recon.data.io.shape import read_shape
folders = [path for path in sorted(Path(sys.argv[1]).iterdir())]
for folder in folders:
    read_shape(next(folder.iterdir()), 2048)
times = {}
for folder in folders:
    started = time.process_time()
    for path in sorted(folder.iterdir()):
        read_shape(path, 2048)
    times[folder.name] = time.process_time() - started
print(json.dumps(times))
"""
"""Program that prints the seconds of each folder; the first file of each is read before."""


def make_mesh(rng: np.random.Generator) -> trimesh.Trimesh:
    """Return a closed mesh of 1,280 triangles with a random shape and random vertex colors."""
    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.vertices *= 1 + 0.2 * rng.random((len(mesh.vertices), 1))
    mesh.visual.vertex_colors = rng.integers(0, 256, (len(mesh.vertices), 4), np.uint8)
    return mesh


def write_ply_points(path: Path, table: np.ndarray) -> None:
    """Write x y z and colors as a binary .ply file."""
    names = [(n, "f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")]
    rows = np.array([*map(tuple, table)], dtype=names)
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))


def write_las(path: Path, table: np.ndarray) -> None:
    """Write x y z and colors as a .las file."""
    las = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
    las.header.scales = [0.001] * 3
    las.x, las.y, las.z = table[:, :3].T
    las.red, las.green, las.blue = (257 * table[:, 3:].T).astype(np.uint16)
    las.write(str(path))


WRITERS: dict[str, Callable[[Path, trimesh.Trimesh, np.ndarray], object]] = {
    "mesh.ply": lambda path, mesh, table: mesh.export(path),
    "ascii.ply": lambda path, mesh, table: path.write_bytes(
        trimesh.exchange.ply.export_ply(mesh, encoding="ascii")
    ),
    "points.ply": lambda path, mesh, table: write_ply_points(path, table),
    "mesh.obj": lambda path, mesh, table: mesh.export(path),
    "mesh.off": lambda path, mesh, table: mesh.export(path),
    "mesh.stl": lambda path, mesh, table: mesh.export(path),
    "mesh.glb": lambda path, mesh, table: mesh.export(path),
    "points.npy": lambda path, mesh, table: np.save(path, table),
    "points.npz": lambda path, mesh, table: np.savez(path, xyz=table[:, :3], rgb=table[:, 3:]),
    "points.xyz": lambda path, mesh, table: np.savetxt(path, table, fmt="%.5g"),
    "points.las": lambda path, mesh, table: write_las(path, table),
}
"""Functions that write one file, by the kind of the file."""


def write_files(root: Path, count: int) -> None:
    """Write `count` files in all, the same number of each kind."""
    rng = np.random.default_rng(0)
    for name, write in WRITERS.items():
        (root / name).mkdir()
        for number in range(count // len(WRITERS)):
            table = np.c_[rng.normal(size=(2048, 3)), rng.integers(0, 256, (2048, 3))]
            write(root / name / f"{number:04d}.{name.split('.')[1]}", make_mesh(rng), table)


def time_version(source: Path, root: Path) -> dict[str, float]:
    """Return the CPU seconds of reading each kind of file with one version of the library."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", READ_ALL, str(root)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    times: dict[str, float] = json.loads(output.stdout)
    return times


def main() -> None:
    """Write the files, read them with both versions, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, help="folder src of another version")
    parser.add_argument("--files", type=int, default=2000)
    options = parser.parse_args()
    best: dict[Path, dict[str, float]] = {THIS_VERSION: {}, options.against: {}}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), options.files)
        started = time.perf_counter()
        for _ in range(ROUNDS):
            for source, times in best.items():
                for name, seconds in time_version(source, Path(folder)).items():
                    times[name] = min(times.get(name, seconds), seconds)
    table = Table("files", "other version, ms", "this version, ms", "ratio")
    count = options.files // len(WRITERS)
    for name in [*WRITERS, "all"]:
        other, this = (
            sum(times.values()) if name == "all" else times[name]
            for times in (best[options.against], best[THIS_VERSION])
        )
        files = count * (len(WRITERS) if name == "all" else 1)
        cells = (f"{1000 * seconds / files:.2f}" for seconds in (other, this))
        table.add_row(name, *cells, f"{other / this:.2f}")
    Console().print(table)
    print(f"CPU time a file, best of {ROUNDS} rounds, {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
