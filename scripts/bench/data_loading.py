"""Measure how fast clouds are read from original files and from the prepared layout.

python scripts/bench/data_loading.py --clouds 50000 --points 8192

Writes files in ShapeNet-55's layout below --folder (5 GB at these sizes, removed at the end),
prepares them, and prints clouds per second and the memory of a worker. All files are in the page
cache, so that the speed of the disk does not matter.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from recon.data.dataset import PointCloudDataset
from recon.data.datasets.shapenet import ShapeNetDataModule
from recon.data.prepared.layout import MANIFEST_NAME
from recon.data.prepared.shard import PrepareJob
from recon.data.prepared.writer import prepare_split, write_index
from recon.utils.atomic_write import write_atomic

ROUNDS = 5
SPLIT = "train"


def write_shapenet_tree(root: Path, clouds: int, points: int) -> None:
    """Write clouds of random coordinates in the layout of ShapeNet-55."""
    (root / "ShapeNet-55").mkdir(parents=True)
    (root / "shapenet_pc").mkdir()
    (root / "shapenet55.json").write_text(
        json.dumps({"catalogue": {"0": 2691156}, "describe": {"0": "airplane"}})
    )
    rng = np.random.default_rng(0)
    block = rng.normal(size=(points + 997, 3)).astype(np.float32)
    names = [f"02691156-{row:06d}" for row in range(clouds)]
    for row, name in enumerate(track(names, "writing .npy files")):
        start = row % 997
        np.save(root / "shapenet_pc" / f"{name}.npy", block[start : start + points])
    (root / "ShapeNet-55" / f"{SPLIT}.txt").write_text("".join(f"{name}.npy\n" for name in names))


def prepare_tree(root: Path, target: Path) -> None:
    """Write the data set in the prepared layout."""
    data = ShapeNetDataModule(root)
    job = PrepareJob(data.open_part(SPLIT), target / SPLIT, with_images=True, settings_key="")
    shards = prepare_split(job, num_workers=2, advance=lambda count: None)
    write_index(job, shards, {"data": "ShapeNetDataModule"})
    write_atomic(target / MANIFEST_NAME, b"{}")


def measure_rate(read: Callable[[int], object], rows: np.ndarray) -> float:
    """Return the clouds per second when read one by one."""
    started = time.perf_counter()
    for row in rows.tolist():
        read(row)
    return len(rows) / (time.perf_counter() - started)


def measure_loader_rate(data: ShapeNetDataModule, batches: int) -> float:
    """Return the clouds per second of a data loader after its workers have started."""
    batch_iterator = iter(data.train_dataloader())
    next(batch_iterator)
    started = time.perf_counter()
    for _ in range(batches):
        next(batch_iterator)
    return batches * data.batch_size / (time.perf_counter() - started)


def read_private_memory(pid: int) -> float:
    """Return the private memory of a process in MB; mapped files are shared."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure_worker_memory(data: ShapeNetDataModule) -> tuple[float, float]:
    """Return the memory in MB of the largest worker after a tenth of an epoch and at its end."""
    loader = data.train_dataloader()
    early = late = 0.0
    for step, _ in enumerate(track(loader, "epoch with two workers")):
        used = max(
            read_private_memory(child.pid or 0) for child in multiprocessing.active_children()
        )
        early, late = (max(early, used), used) if step < len(loader) / 10 else (early, used)
    return early, late


def open_datamodule(root: Path, workers: int) -> ShapeNetDataModule:
    """Open the data module with batches of 32."""
    data = ShapeNetDataModule(root, split=SPLIT, batch_size=32, num_workers=workers)
    data.setup("fit")
    return data


def measure(roots: dict[str, Path], clouds: int) -> None:
    """Print the clouds per second of each kind of files, and their ratio."""
    rng = np.random.default_rng(1)
    datasets: dict[str, PointCloudDataset] = {
        k: open_datamodule(r, 0).dataset for k, r in roots.items()
    }
    files = datasets["original"]
    paths = [roots["original"] / "shapenet_pc" / f"{name}.npy" for name in files.ids]
    readers = {"np.load": lambda row: np.load(paths[row])}
    readers |= {name: data.cloud for name, data in datasets.items()}
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        rows = rng.integers(0, clouds, min(5000, clouds))
        for name, read in readers.items():
            rates.setdefault(f"one by one, {name}", []).append(measure_rate(read, rows))
    for workers in (0, 2):
        for _ in range(ROUNDS):
            for name, root in roots.items():
                loaded = measure_loader_rate(
                    open_datamodule(root, workers), min(150, clouds // 32 - 2)
                )
                rates.setdefault(f"loader, {workers} workers, {name}", []).append(loaded)
    table = Table("", "clouds per second", "ratio to original")
    for name, values in rates.items():
        original = statistics.median(rates[f"{name.rpartition(', ')[0]}, original"])
        median = statistics.median(values)
        table.add_row(name, f"{median:,.0f}", f"{median / original:.2f}")
    Console().print(table)
    for name, root in roots.items():
        early, late = measure_worker_memory(open_datamodule(root, 2))
        print(f"{name}: a worker has {early:.0f} MB after a tenth, {late:.0f} MB at the end")


def main() -> None:
    """Write and prepare the data, measure, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clouds", type=int, default=50_000)
    parser.add_argument("--points", type=int, default=8192)
    parser.add_argument(
        "--folder", type=Path, default=None, help="a folder on a disk with free space"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        roots = {"original": Path(folder) / "original", "prepared": Path(folder) / "prepared"}
        write_shapenet_tree(roots["original"], args.clouds, args.points)
        started = time.perf_counter()
        prepare_tree(roots["original"], roots["prepared"])
        print(f"prepared {args.clouds:,} clouds in {time.perf_counter() - started:.0f} s")
        measure(roots, args.clouds)


if __name__ == "__main__":
    main()
