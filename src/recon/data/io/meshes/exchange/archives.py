"""Open zip files of meshes, up to a total unpacked size."""

import posixpath
import zipfile
from pathlib import Path

from recon.data.io.file_checks import (
    MAX_FILE_BYTES,
    MAX_UNPACK_RATIO,
    MIN_UNPACK_LIMIT,
    UnsupportedContentError,
)

ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""Compression methods whose output Python's reader limits."""


class MeshArchive:
    """Members of a zip file, by their paths in lower case; raises ValueError for one too large."""

    def __init__(self, path: Path) -> None:
        self.file = zipfile.ZipFile(path)
        members = [member for member in self.file.infolist() if not member.is_dir()]
        self.members = {normalize_name(member.filename): member for member in members}
        size = path.stat().st_size
        limit = min(MAX_FILE_BYTES, max(MIN_UNPACK_LIMIT, MAX_UNPACK_RATIO * size))
        if (total := sum(member.file_size for member in members)) > limit:
            raise UnsupportedContentError(
                f"it unpacks to {total:,} bytes, the limit for its size is {limit:,}: save it "
                "without compression"
            )

    def read(self, name: str) -> bytes:
        """Unpack a member; raise ValueError if it is missing or does not have its declared size."""
        member = self.members.get(normalize_name(name))
        if member is None:
            raise ValueError(f"it lacks its part {name!r:.200}")
        if member.compress_type not in ZIP_METHODS or member.flag_bits & 1:
            raise UnsupportedContentError(
                "it is encrypted or compressed by a method other than deflate: save it as usual"
            )
        with self.file.open(member) as file:
            content = file.read(member.file_size + 1)
        if len(content) != member.file_size:
            raise ValueError(f"{member.filename} does not have its declared size")
        return content


def normalize_name(name: str, folder: str = "") -> str:
    """Return the path of a member from the root of its archive, in lower case."""
    path = posixpath.join("/", folder, name.replace("\\", "/"))
    return posixpath.normpath(path).lstrip("/").lower()
