"""Check the files of a USD stage before OpenUSD composes them."""

import os
import struct
from pathlib import Path

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.meshes.exchange.archives import MeshArchive

MAX_LAYERS = 2**10
"""Maximum number of files that a stage is composed of."""
CRASH_SECTION_BYTES = 32
"""Size of an entry in the table of contents of a binary file, in bytes."""


def check_layers(path: Path) -> None:
    """Raise ValueError for damaged files of a stage, and ones outside of the folder above it."""
    from pxr import Sdf

    check_usd(path)
    root = path.resolve()
    pending, visited = [str(root)], set[str]()
    while pending:
        name = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        if len(visited) > MAX_LAYERS:
            raise UnsupportedContentError(
                f"it refers to more than {MAX_LAYERS} files: flatten the stage"
            )
        layer = Sdf.Layer.FindOrOpen(name)
        if layer is None:
            raise ValueError("OpenUSD cannot open it")
        for reference in layer.GetCompositionAssetDependencies():
            found = layer.ComputeAbsolutePath(reference)
            file = Path(os.path.normpath(found.partition("[")[0]))
            if found.startswith(str(root) + "[") or not file.is_file():
                continue  # parts of the package, and missing files, which composition reports
            if not file.resolve().is_relative_to(root.parent.parent):
                raise UnsupportedContentError(
                    f"it refers to {reference!r:.200}, which is outside of its folders: copy it "
                    "beside the file"
                )
            check_usd(file)
            pending.append(found)


def check_usd(path: Path) -> None:
    """Raise ValueError for a file whose header does not match its size or a known format."""
    with path.open("rb") as file:
        head = file.read(88)
    if head[:8] == b"PXR-USDC":
        _check_crash(path, head)
    elif head[:4] == b"PK\3\4":
        MeshArchive(path)
    elif not head.lstrip(b"\xef\xbb\xbf").startswith((b"#usda", b"#sdf")):
        raise ValueError("it has no header of USD")


def _check_crash(path: Path, head: bytes) -> None:
    size = path.stat().st_size
    (start,) = struct.unpack_from("<q", head, 16)
    if not 88 <= start <= size - 8:
        raise ValueError(f"its table of contents begins at byte {start}, it has {size}")
    with path.open("rb") as file:
        file.seek(start)
        (count,) = struct.unpack("<Q", file.read(8))
        if count * CRASH_SECTION_BYTES > size - start - 8:
            raise ValueError(f"its header declares {count} sections, it has {size} bytes")
        table = file.read(count * CRASH_SECTION_BYTES)
    for _, offset, length in struct.iter_unpack("<16sqq", table):
        if offset < 0 or length < 0 or offset + length > size:
            raise ValueError(f"a section ends at byte {offset + length}, it has {size}")
