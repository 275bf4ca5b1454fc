"""Tell what columns without names hold: by unit vectors, ranges, integers and similarity."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from recon.data.io.file_checks import UnsupportedContentError
from recon.data.io.points.cloud import COLOR_TOLERANCE

MAX_ROWS_TESTED = 4096
"""Maximum number of rows that are looked at, evenly spaced."""
MAX_AMBIGUOUS_COLUMNS = 10
"""Tables of more columns hold features: they are not refused if their colors are uncertain."""
MAX_LABELS = 64
"""Maximum number of different values of a column of labels."""
MIN_MARGIN = 0.25
"""How much better the best position of the colors must be than any other."""
NORMAL_NAMES, COLOR_NAMES = ("nx", "ny", "nz"), ("r", "g", "b")
LOCATION_NAMES = ("x_normalized", "y_normalized", "z_normalized")
"""Names of coordinates as fractions of a room, which follow the colors in blocks of S3DIS."""


class _Column(NamedTuple):
    """A column's values and their range."""

    values: Float[np.ndarray, " n"]
    low: float
    high: float
    is_integer: bool

    @property
    def is_fraction(self) -> bool:
        return self.low >= -COLOR_TOLERANCE and self.high <= 1 + COLOR_TOLERANCE

    @property
    def is_constant(self) -> bool:
        return self.low == self.high

    def is_label(self) -> bool:
        """Whether it holds few different integers from -1 to 255."""
        is_byte = self.is_integer and self.low >= -1 and self.high <= 255
        return is_byte and self.count_values() <= MAX_LABELS

    def count_values(self) -> int:
        return len(np.unique(self.values))


def name_columns(table: Num[np.ndarray, "n c"]) -> list[str]:
    """Return a name for each column: x y z, then nx ny nz, r g b, intensity, label by their values.

    Other columns are named `column_4` and so on, after their number. Raises ValueError if the
    colors may be at two places.
    """
    names = [*"xyz", *(f"column_{number}" for number in range(4, table.shape[1] + 1))]
    rows = table[:: max(1, len(table) // MAX_ROWS_TESTED)].astype(np.float64)
    if not np.isfinite(rows.sum()):
        rows = rows[np.isfinite(rows).all(1)]
    if not len(rows) or len(names) == 3:
        return names
    if (normals := _find_normals(rows)) is not None:
        names[normals : normals + 3] = NORMAL_NAMES
        if len(names) == 6:
            return names
    columns = _describe(rows)
    if (locations := _find_locations(rows, columns, names)) is not None:
        names[locations : locations + 3] = LOCATION_NAMES
    if (colors := _find_colors(columns, names)) is not None:
        names[colors : colors + 3] = COLOR_NAMES
    _name_scalars(columns, names)
    return names


def _describe(rows: Float[np.ndarray, "n c"]) -> list[_Column]:
    table = np.ascontiguousarray(rows.T)
    is_integer = (table == np.round(table)).all(1)
    ranges = zip(table, table.min(1).tolist(), table.max(1).tolist(), is_integer, strict=True)
    return [_Column(values, low, high, bool(integer)) for values, low, high, integer in ranges]


def _find_normals(rows: Float[np.ndarray, "n c"]) -> int | None:
    """Return the first column of unit vectors; a few may be zero, as those of degenerate faces."""
    squares = rows[:, 3:] ** 2
    for start in range(rows.shape[1] - 5):
        lengths = squares[:, start] + squares[:, start + 1] + squares[:, start + 2]
        num_units = np.count_nonzero(np.abs(lengths - 1) < 0.04)  # of the squared length
        if 2 * num_units > len(rows) and num_units > 0.9 * np.count_nonzero(lengths > 1e-12):
            return start + 3
    return None


def _free_windows(names: list[str]) -> Iterator[int]:
    for start in range(3, len(names) - 2):
        if all(name.startswith("column_") for name in names[start : start + 3]):
            yield start


def _find_locations(
    rows: Float[np.ndarray, "n c"], columns: list[_Column], names: list[str]
) -> int | None:
    """Return the first of three columns of fractions that rise with x y z, after other columns."""
    for start in _free_windows(names):
        window = columns[start : start + 3]
        if start >= 6 and all(column.is_fraction for column in window):
            varying = [place for place, column in enumerate(window) if not column.is_constant]
            rises = (_correlate(rows[:, i], window[i].values) > 0.98 for i in varying)
            if len(varying) > 1 and all(rises):
                return start
    return None


def _find_colors(columns: list[_Column], names: list[str]) -> int | None:
    """Return the first of the three columns that are colors, None without them."""
    starts = [s for s in _free_windows(names) if _may_be_colors(columns[s : s + 3])]
    if len(starts) < 2:
        return starts[0] if starts else None
    scores = {start: _score_colors(columns, names, start) for start in starts}
    best = max(starts, key=lambda start: scores[start])
    rivals = [s for s in starts if s != best and scores[s] > scores[best] - MIN_MARGIN]
    if not rivals:
        return best
    num_free = sum(name.startswith("column_") for name in names)
    if num_free == 6 and starts[0] + 3 in starts:  # of two sets of fractions, colors come first
        return starts[0]
    if len(names) > MAX_AMBIGUOUS_COLUMNS:
        return None
    raise UnsupportedContentError(_explain_ambiguity(columns, names, sorted((best, *rivals))))


def _may_be_colors(columns: list[_Column]) -> bool:
    """Return whether columns are in a range of colors: fractions, bytes or 16-bit integers."""
    low, high = min(c.low for c in columns), max(c.high for c in columns)
    if all(c.is_integer for c in columns):
        is_wide = high <= 65535 and all(c.high > 255 for c in columns)
        return low >= 0 and (high <= 255 or is_wide)
    if all(c.is_fraction for c in columns):
        return True
    has_fractions = all(not c.is_integer or c.is_constant for c in columns)
    is_byte = low >= -255 * COLOR_TOLERANCE and 32 <= high <= 255 * (1 + COLOR_TOLERANCE)
    return has_fractions and is_byte and min(c.high for c in columns) > 0.05 * high


def _score_colors(columns: list[_Column], names: list[str], start: int) -> float:
    """Return how likely three columns are the colors, rather than those beside them."""
    window = columns[start : start + 3]
    values = np.stack([column.values for column in window], 1)
    highs = [column.high for column in window]
    score = min(highs) / max(highs) if max(highs) > 0 else 0.5
    score += max(0.0, sum(_correlate(values[:, i], values[:, i - 1]) for i in range(3)) / 3)
    score += (np.ptp(values, axis=1) == 0).mean() > 0.9  # grays
    num_constant = sum(column.is_constant for column in window)
    score += {0: 0, 3: 1}.get(num_constant, -0.5)
    score += not all(c.is_integer for c in window) and _are_integers(values * 255)
    num_values = min(column.count_values() for column in window)
    for place, column in enumerate(columns):
        if names[place].startswith("column_") and not start <= place < start + 3:
            score += _score_scalar(column, num_values, place > start)
            score += _is_luminance(column.values, values)
    return float(score)


def _score_scalar(column: _Column, num_values: int, follows: bool) -> float:
    """Return how likely a column beside colors is a label, an alpha value or a constant.

    `num_values` is the smallest number of values of the three colors.
    """
    if column.is_constant:
        return 0.5 if follows and column.high in (1, 255) else 0.25
    if not column.is_label():
        return 0.0
    count = column.count_values()
    is_dense = column.high <= 63 and count >= (column.high - max(column.low, 0) + 1) / 3
    return 0.5 if 4 * count < num_values or (follows and is_dense) else 0.0


def _is_luminance(column: Float[np.ndarray, " n"], colors: Float[np.ndarray, "n 3"]) -> bool:
    """Return whether a column is a weighted mean of three colors."""
    if len(column) < 16 or not (deviation := float(column.std())):
        return False
    weights = np.linalg.lstsq(colors, column)[0]
    residual = float((column - colors @ weights).std())
    is_mean = abs(weights.sum() - 1) < 0.1 and weights.min() > 0.02
    return bool(is_mean and residual < 0.05 * deviation)


def _are_integers(values: Float[np.ndarray, "n c"]) -> bool:
    return bool(np.abs(values - np.round(values)).max() < 0.02)


def _correlate(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Return the correlation of two columns, 0 for few points and constant columns."""
    if len(first) < 16:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norms) if norms > 0 else 0.0


def _name_scalars(columns: list[_Column], names: list[str]) -> None:
    """Name the last column of few integers a label, and the first or only other one intensity."""
    free = [place for place, name in enumerate(names) if name.startswith("column_")]
    if free and (len(free) == 1 or free[-1] == len(names) - 1) and columns[free[-1]].is_label():
        names[free.pop()] = "label"
    if len(free) == 1 or (free and len(names) <= 5):
        names[free[0]] = "intensity"


def _explain_ambiguity(columns: list[_Column], names: list[str], starts: list[int]) -> str:
    readings = []
    for start in starts:
        readings.append(list(names))
        readings[-1][start : start + 3] = COLOR_NAMES
        _name_scalars(columns, readings[-1])
    texts = " or ".join(" ".join(reading) for reading in readings)
    return (
        f"its {len(names)} columns without names may be {texts}: name them with the option "
        f"columns=[{','.join(readings[-1])}]"
    )
