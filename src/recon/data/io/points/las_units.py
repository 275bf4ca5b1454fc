"""Find the unit of coordinates in the coordinate system that a LAS file declares."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

GEO_KEY_RECORD, WKT_RECORD = 34735, 2112
"""Numbers of the records that hold a coordinate system."""
MODEL_TYPE_KEY, PROJECTED_KEY, LINEAR_UNIT_KEY, VERTICAL_UNIT_KEY = 1024, 3072, 3076, 4099
GEOGRAPHIC_MODEL = 2
UNIT_METERS: Mapping[int, float] = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
"""Length of EPSG's units in meters: meter, international foot, US survey foot."""
METRIC_ZONES = ((32601, 32660), (32701, 32760), (26901, 26923), (25828, 25838), (31466, 31469))
"""Numbers of EPSG's systems in meters: UTM zones of WGS 84, NAD83 and ETRS89, and zones of DHDN."""
WKT_TOKEN = re.compile(r'"[^"]*"|[A-Za-z_]\w*(?=\s*[\[(])|[\])]|[-+]?[\d.]+(?:[eE][-+]?\d+)?')
PROJECTED = {"PROJCS", "PROJCRS", "PROJECTEDCRS", "LOCAL_CS", "ENGCRS"}
GEOGRAPHIC = {"GEOGCS", "GEOGCRS", "GEODCRS", "GEOGRAPHICCRS", "BASEGEOGCRS", "BASEGEODCRS"}
VERTICAL = {"VERT_CS", "VERTCRS", "VERTICALCRS"}
MAX_WKT_CHARS = 2**16


def find_las_unit(records: Sequence[Any]) -> tuple[float | None, tuple[str, ...]]:
    """Return the length of the horizontal unit in meters, None if unknown, and notes.

    `records` are the variable length records of a file, as laspy reads them.
    """
    units: dict[str, float | None] = {}
    for record in records:
        if record.record_id == WKT_RECORD and hasattr(record, "string"):
            units = _read_wkt(str(record.string)[:MAX_WKT_CHARS]) or units
        elif record.record_id == GEO_KEY_RECORD and hasattr(record, "geo_keys") and not units:
            units = _read_geo_keys({key.id: key.value_offset for key in record.geo_keys})
    horizontal, vertical = units.get("horizontal"), units.get("vertical")
    if "degrees" in units:
        return None, ("its x and y are longitude and latitude in degrees: project them to meters",)
    if horizontal and vertical and abs(horizontal - vertical) > 1e-4 * horizontal:
        return horizontal, (
            f"its heights are in units of {vertical:.6g} m, x and y in units of {horizontal:.6g} m",
        )
    return horizontal, ()


def _read_geo_keys(keys: Mapping[int, int]) -> dict[str, float | None]:
    system = keys.get(PROJECTED_KEY, 0)
    is_metric = any(first <= system <= last for first, last in METRIC_ZONES)
    if keys.get(MODEL_TYPE_KEY) == GEOGRAPHIC_MODEL:
        return {"degrees": None}
    return {
        "horizontal": UNIT_METERS.get(keys.get(LINEAR_UNIT_KEY, 0), 1.0 if is_metric else None),
        "vertical": UNIT_METERS.get(keys.get(VERTICAL_UNIT_KEY, 0)),
    }


def _read_wkt(text: str) -> dict[str, float | None]:
    units: dict[str, float | None] = {}
    names: set[str] = set()
    for parents, factor in _iterate_units(text, names):
        if parents & VERTICAL:
            units.setdefault("vertical", factor)
        elif parents & PROJECTED and not parents & (GEOGRAPHIC | {"CONVERSION", "PARAMETER"}):
            units.setdefault("horizontal", factor)
    if names & GEOGRAPHIC and not names & PROJECTED:
        return {"degrees": None}
    return units


def _iterate_units(text: str, names: set[str]) -> Iterator[tuple[set[str], float]]:
    """Yield the enclosing nodes and the factor of each unit of length; add all names to `names`."""
    stack: list[str] = []
    for match in WKT_TOKEN.finditer(text):
        token = match[0]
        if token in ("]", ")"):
            stack = stack[:-1]
        elif token[0].isalpha() or token[0] == "_":
            stack.append(token.upper())
            names.add(stack[-1])
        elif stack and stack[-1] in ("UNIT", "LENGTHUNIT") and token[0] != '"':
            yield {*stack}, float(token)
            stack[-1] = ""  # the numbers of an identifier follow
