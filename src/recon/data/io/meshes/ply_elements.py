"""Read the elements of .ply files into arrays, from text and binary data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num

from recon.data.io.meshes.numbers import parse_numbers, range_each
from recon.data.io.meshes.ply_header import PlyElement, PlyHeader, PlyProperty


class PlyList(NamedTuple):
    """A list property of all elements of one name."""

    counts: Int[np.ndarray, " n"]
    values: Num[np.ndarray, " m"]
    """Numbers of all lists, one after another."""


Columns = Mapping[str, np.ndarray | PlyList]
"""Properties of all elements of one name."""


def stack_columns(columns: Columns, names: Sequence[str]) -> Num[np.ndarray, "n c"] | None:
    """Stack properties as columns of a common type; return None if one is missing.

    Upper and lower case are the same.
    """
    by_name = {name.lower(): values for name, values in columns.items()}
    found = [by_name.get(name) for name in names]
    arrays = [values for values in found if isinstance(values, np.ndarray)]
    if len(arrays) < len(names):
        return None
    stacked = np.stack(arrays, 1)
    return stacked.astype(stacked.dtype.newbyteorder("="), copy=False)


def find_columns(
    columns: Columns, alternatives: Sequence[Sequence[str]]
) -> Num[np.ndarray, "n c"] | None:
    """Stack the properties of the first names that are all present."""
    stacked = (stack_columns(columns, names) for names in alternatives)
    return next((array for array in stacked if array is not None), None)


def read_elements(content: bytes, header: PlyHeader) -> dict[str, Columns]:
    """Return the properties of all elements by their names.

    Floats of texts are read as float64. Raises ValueError for a file that ends early, or goes on
    after the last element.
    """
    elements: dict[str, Columns] = {}
    if not header.byte_order:
        numbers, place = parse_numbers(content[header.num_bytes :]), 0
        for element in header.elements:
            elements[element.name], place = _read_text_rows(numbers, element, place)
        if place < len(numbers):
            raise ValueError(f"{len(numbers) - place} numbers follow the last element")
        return elements
    offset = header.num_bytes
    for element in header.elements:
        elements[element.name], offset = _read_rows(content, element, header.byte_order, offset)
    has_lists = any(item.count_code for element in header.elements for item in element.properties)
    if not has_lists and content[offset:].strip():
        raise ValueError(f"{len(content) - offset} bytes follow the last element")
    return elements


def _read_rows(content: bytes, element: PlyElement, order: str, offset: int) -> tuple[Columns, int]:
    """Read elements of one name from binary data; returns the place of the next byte, too."""
    lengths = dict[str, int]()
    if element.number and any(item.count_code for item in element.properties):
        lengths = _read_first_lengths(content, element, order, offset)
    fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for number, item in enumerate(element.properties):
        if item.count_code:
            fields.append((f"count {number}", order + item.count_code))
            fields.append((f"value {number}", order + item.code, (lengths.get(item.name, 0),)))
        else:
            fields.append((f"value {number}", order + item.code))
    row = np.dtype(fields)
    end = offset + element.number * row.itemsize
    if end > len(content) and not lengths:
        raise ValueError(f"it ends inside its {element.number} elements {element.name!r}")
    if end <= len(content):
        table = np.frombuffer(content, row, element.number, offset)
        columns = _select_columns(table, element, lengths)
        if columns is not None:
            return columns, end
    return _walk_rows(content, element, order, offset)


def _read_first_lengths(
    content: bytes, element: PlyElement, order: str, offset: int
) -> dict[str, int]:
    lengths = {}
    for item in element.properties:
        if item.count_code:
            lengths[item.name] = _read_count(content, offset, item, order)
            offset += int(item.count_code[1:]) + lengths[item.name] * int(item.code[1:])
        else:
            offset += int(item.code[1:])
    return lengths if offset <= len(content) else dict.fromkeys(lengths, 0)


def _read_count(content: bytes, offset: int, item: PlyProperty, order: str) -> int:
    code = item.count_code or "u1"
    word = content[offset : offset + int(code[1:])]
    count = int.from_bytes(word, "little" if order == "<" else "big", signed=code[0] == "i")
    if count < 0:
        raise ValueError(f"a list {item.name!r} has {count} numbers")
    return count


def _select_columns(
    table: np.ndarray, element: PlyElement, lengths: dict[str, int]
) -> Columns | None:
    """Return the columns of a table; None if the lists of its rows have different lengths."""
    columns: dict[str, np.ndarray | PlyList] = {}
    for number, item in enumerate(element.properties):
        values = table[f"value {number}"]
        if item.count_code:
            counts = table[f"count {number}"]
            if not (counts == lengths.get(item.name, 0)).all():
                return None
            columns[item.name] = PlyList(counts.astype(np.int64), values.reshape(-1))
        else:
            columns[item.name] = values
    return columns


def _walk_rows(content: bytes, element: PlyElement, order: str, offset: int) -> tuple[Columns, int]:
    """Read elements with lists of different lengths from binary data, one after another."""
    places: list[list[int]] = [[] for _ in element.properties]
    counts: list[list[int]] = [[] for _ in element.properties]
    steps = [
        (item, int((item.count_code or "u0")[1:]), int(item.code[1:]), place.append, count.append)
        for item, place, count in zip(element.properties, places, counts, strict=True)
    ]
    for _ in range(element.number):
        for item, count_bytes, item_bytes, add_place, add_count in steps:
            count = 1
            if count_bytes == 1:
                count = content[offset]
            elif count_bytes:
                count = _read_count(content, offset, item, order)
            offset += count_bytes
            add_place(offset)
            add_count(count)
            offset += count * item_bytes
        if offset > len(content):
            raise ValueError(f"it ends inside its {element.number} elements {element.name!r}")
    columns: dict[str, np.ndarray | PlyList] = {}
    for item, place, count_list in zip(element.properties, places, counts, strict=True):
        numbers = np.array(count_list, np.int64)
        values = _gather(content, np.array(place), numbers, np.dtype(order + item.code))
        columns[item.name] = PlyList(numbers, values) if item.count_code else values
    return columns, offset


def _gather(
    content: bytes, places: Int[np.ndarray, " n"], counts: Int[np.ndarray, " n"], dtype: np.dtype
) -> np.ndarray:
    """Return `counts` numbers from each byte of `places` on, one after another."""
    data = np.frombuffer(content, np.uint8)
    return data[range_each(places, counts * dtype.itemsize)].view(dtype)


def _read_text_rows(numbers: np.ndarray, element: PlyElement, place: int) -> tuple[Columns, int]:
    """Read elements of one name from the numbers of a text; returns the next place, too."""
    if not element.number:
        empty = np.empty(0)
        return {
            item.name: PlyList(empty.astype(np.int64), empty) if item.count_code else empty
            for item in element.properties
        }, place
    width, starts = 0, list[int]()
    for item in element.properties:
        starts.append(width)
        is_inside = item.count_code and place + width < len(numbers)
        width += 1 + (_to_count(numbers[place + width], item) if is_inside else 0)
    end = place + width * element.number
    if end <= len(numbers):
        table = numbers[place:end].reshape(element.number, width)
        lists = [
            start for start, item in zip(starts, element.properties, strict=True) if item.count_code
        ]
        if (table[:, lists] == table[0, lists]).all():
            return _select_text_columns(table, element, starts), end
    elif not any(item.count_code for item in element.properties):
        raise ValueError(f"it ends inside its {element.number} elements {element.name!r}")
    return _walk_text_rows(numbers, element, place)


def _select_text_columns(table: np.ndarray, element: PlyElement, starts: list[int]) -> Columns:
    columns: dict[str, np.ndarray | PlyList] = {}
    for item, start, end in zip(
        element.properties, starts, [*starts[1:], table.shape[1]], strict=True
    ):
        if item.count_code:
            values = _convert(table[:, start + 1 : end].reshape(-1), item)
            columns[item.name] = PlyList(table[:, start].astype(np.int64), values)
        else:
            columns[item.name] = _convert(table[:, start], item)
    return columns


def _to_count(number: float, item: PlyProperty) -> int:
    if not 0 <= number < 2**32:
        raise ValueError(f"a list {item.name!r} has {number:g} numbers")
    return int(number)


def _walk_text_rows(numbers: np.ndarray, element: PlyElement, place: int) -> tuple[Columns, int]:
    """Read elements with lists of different lengths from the numbers of a text."""
    values = numbers.tolist()
    places: list[list[int]] = [[] for _ in element.properties]
    counts: list[list[int]] = [[] for _ in element.properties]
    for _ in range(element.number):
        for number, item in enumerate(element.properties):
            if place >= len(values):
                raise ValueError(f"it ends inside its {element.number} elements {element.name!r}")
            count = _to_count(values[place], item) if item.count_code else 1
            place += item.count_code is not None
            places[number].append(place)
            counts[number].append(count)
            place += count
    if place > len(values):
        raise ValueError(f"it ends inside its {element.number} elements {element.name!r}")
    columns: dict[str, np.ndarray | PlyList] = {}
    for number, item in enumerate(element.properties):
        sizes = np.array(counts[number], np.int64)
        column = _convert(numbers[range_each(np.array(places[number]), sizes)], item)
        columns[item.name] = PlyList(sizes, column) if item.count_code else column
    return columns, place


def _convert(values: np.ndarray, item: PlyProperty) -> np.ndarray:
    """Convert numbers of a text to integers of the declared type, where they are such integers."""
    if item.code[0] == "f":
        return values
    with np.errstate(invalid="ignore"):
        integers = values.astype(item.code)
    return integers if np.array_equal(integers, values) else values
