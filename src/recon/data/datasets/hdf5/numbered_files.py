"""List the numbered HDF5 files of a data set, as the downloads of PointNet have them."""

import re
from pathlib import Path, PurePosixPath

from recon.data.io.arrays import read_lines
from recon.data.io.file_checks import resolve_inside


def list_numbered_files(folder: Path, stem: str, listing: str) -> list[Path]:
    """Return the files in the text file `listing`, else those named `<stem><number>.h5`, in order.

    Only the file names of the list are used: its folders are those of the computer that wrote it.
    Names of files may begin with other words, as in ply_data_train0.h5. Raises ValueError, which
    names the list, for a file outside the folder.
    """
    path = folder / listing
    if path.is_file():
        names = [PurePosixPath(line.replace("\\", "/")).name for line in read_lines(path)]
        return [resolve_inside(folder, name, path) for name in names]
    pattern = re.compile(rf"(.*_)?{stem}_?(\d*)\.(h5|hdf5)")
    matches = [match for file in folder.glob("*.h*5") if (match := pattern.fullmatch(file.name))]
    return [folder / match[0] for match in sorted(matches, key=lambda m: (int(m[2] or 0), m[0]))]
