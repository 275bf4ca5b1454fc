"""Readers of formats for the exchange between programs, by extension."""

from collections.abc import Callable, Mapping
from pathlib import Path

from recon.data.io.meshes.exchange.collada.document import read_collada
from recon.data.io.meshes.exchange.step import read_step
from recon.data.io.meshes.exchange.threemf import read_3mf
from recon.data.io.meshes.exchange.usd.stage import read_usd
from recon.data.io.meshes.exchange.vtk_files import read_vtk
from recon.data.io.meshes.surface import MeshContent
from recon.data.io.points.table import ReadOptions

EXCHANGE_READERS: Mapping[str, Callable[[Path, ReadOptions], MeshContent]] = {
    ".3mf": read_3mf,
    **dict.fromkeys((".dae", ".zae"), read_collada),
    **dict.fromkeys((".step", ".stp"), read_step),
    **dict.fromkeys((".usd", ".usda", ".usdc", ".usdz"), read_usd),
    **dict.fromkeys((".vtk", ".vtp", ".vtu"), read_vtk),
}
