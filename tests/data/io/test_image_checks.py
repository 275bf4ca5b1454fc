"""Images: their format, number of pixels and scans are limited before they are decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.data.io import image_checks
from recon.data.io.image_checks import check_image, check_jpeg_scans, decode_image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_an_image_has_a_limited_number_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(Image.new("L", (8, 9), 7), "PNG")
    monkeypatch.setattr(image_checks, "MAX_PIXELS", 71)
    with pytest.raises(ValueError, match=r"x\.png: .*8 x 9"):
        decode_image(content, "x.png")
    monkeypatch.setattr(image_checks, "MAX_PIXELS", 72)
    assert decode_image(content, "x.png").getpixel((3, 3)) == (7, 7, 7)


def test_a_jpeg_has_a_limited_number_of_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(Image.new("RGB", (64, 64), (7, 8, 9)), "JPEG", progressive=True)
    count = content.count(b"\xff\xda")
    assert count > 3
    monkeypatch.setattr(image_checks, "MAX_JPEG_SCANS", count - 1)
    with pytest.raises(ValueError, match=rf"x\.jpg: .*JPEG of {count}"):
        decode_image(content, "x.jpg")
    monkeypatch.setattr(image_checks, "MAX_JPEG_SCANS", count)
    assert decode_image(content, "x.jpg").size == (64, 64)
    check_jpeg_scans(b"no JPEG" + b"\xff\xda" * (count + 1))


@pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX"])
def test_images_of_other_formats_are_refused(kind: str, tmp_path: Path) -> None:
    content = encode(Image.new("RGB", (8, 8)), kind)
    with pytest.raises(ValueError, match=r"x\.png: not a readable"):
        decode_image(content, tmp_path / "x.png")
    with pytest.raises(ValueError, match=kind), Image.open(io.BytesIO(content)) as image:
        check_image(image)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_images_of_32_bits_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=r"x\.tif: .*8 bits"):
        decode_image(encode(Image.new(mode, (8, 8)), "TIFF"), "x.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "expected"), [(65535, 255), (32768, 128), (200, 1), (0, 0)])
def test_images_of_16_bits_are_scaled(kind: str, value: int, expected: int) -> None:
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert decode_image(encode(image, kind), "x").getpixel((3, 3)) == (expected,) * 3


def test_pictures_name_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (64, 64), 7).save(path)
    whole = path.read_bytes()
    assert decode_image(whole, path).getpixel((3, 3)) == (7, 7, 7)
    for content in (b"", b"no picture", whole[:60]):
        with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
            decode_image(content, path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
        decode_image(whole, path)
