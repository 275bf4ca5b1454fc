"""Read material libraries (.mtl) of .obj files: diffuse colors and textures."""

import re
from collections.abc import Mapping
from typing import NamedTuple

NUMBER_OPTIONS = {
    "-bm": 1, "-boost": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3, "-texres": 1,
}  # fmt: skip
"""Options of a texture with numbers, and how many; `-o`, `-s` and `-t` may have fewer."""
WORD_OPTIONS = ("-blendu", "-blendv", "-cc", "-clamp", "-colorspace", "-imfchan", "-type")
"""Options of a texture with one word."""
IGNORED_OPTIONS = ("-mm", "-t", "-imfchan")
"""Options that change the colors and are not applied."""


class TextureMap(NamedTuple):
    """An image and how it is placed: `uv * scale + offset`, v up."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    is_clamped: bool = False
    ignored: tuple[str, ...] = ()
    """Options that were given but are not applied."""


class Material(NamedTuple):
    """Diffuse color of a material, fractions, and its texture."""

    diffuse: tuple[float, float, float] | None = None
    texture: TextureMap | None = None


def parse_mtl(text: str) -> Mapping[str, Material]:
    """Return the materials of a library by name.

    Only `Kd` and `map_Kd` are read: ambient and specular colors and opacity do not change the
    color of a surface itself. Colors that are not RGB, such as spectral curves, are left out.
    """
    materials: dict[str, Material] = {}
    name = None
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        keyword, _, value = line.strip().partition(" ")
        keyword, value = (
            keyword.partition("\t")[0],
            line.strip()[len(keyword.partition("\t")[0]) :].strip(),
        )
        if keyword.lower() == "newmtl":
            name = value
            materials[name] = Material()
        elif name is not None and keyword.lower() == "kd":
            materials[name] = materials[name]._replace(diffuse=_parse_color(value))
        elif name is not None and keyword.lower() == "map_kd" and value:
            materials[name] = materials[name]._replace(texture=parse_texture_map(value))
    return materials


def _parse_color(value: str) -> tuple[float, float, float] | None:
    numbers = []
    for word in value.partition("#")[0].split()[:3]:
        if (number := _to_number(word)) is None:
            return None
        numbers.append(min(max(number, 0.0), 1.0))
    if len(numbers) == 1:  # one value stands for all three
        numbers *= 3
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _to_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def parse_texture_map(value: str) -> TextureMap:
    """Parse options and the name of an image, which may have blanks."""
    texture, rest = TextureMap(""), value.strip()
    while rest.startswith("-"):
        option, _, remaining = rest.partition(" ")
        option = option.lower()
        if option in WORD_OPTIONS:
            word, _, remaining = remaining.strip().partition(" ")
            if option == "-clamp":
                texture = texture._replace(is_clamped=word.lower() == "on")
        elif option in NUMBER_OPTIONS:
            numbers, remaining = _take_numbers(remaining, NUMBER_OPTIONS[option])
            texture = _apply_numbers(texture, option, numbers)
        else:
            break
        if option in IGNORED_OPTIONS:
            texture = texture._replace(ignored=(*texture.ignored, option))
        rest = remaining.strip()
    return texture._replace(name=rest.strip('"'))


def _take_numbers(text: str, maximum: int) -> tuple[list[float], str]:
    numbers = list[float]()
    while len(numbers) < maximum:
        word, _, rest = text.strip().partition(" ")
        number = _to_number(word)
        if number is None or not rest.strip():  # the last word is the name
            break
        numbers.append(number)
        text = rest
    return numbers, text


def _apply_numbers(texture: TextureMap, option: str, numbers: list[float]) -> TextureMap:
    if option == "-s" and numbers:
        return texture._replace(scale=(numbers[0], numbers[1] if len(numbers) > 1 else 1.0))
    if option == "-o" and numbers:
        return texture._replace(offset=(numbers[0], numbers[1] if len(numbers) > 1 else 0.0))
    return texture
