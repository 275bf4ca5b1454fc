"""Sentences around a category's name."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from recon.utils.printable import check_printable

_NOUNS = (
    "model", "image", "3D model", "rendering model", "point cloud", "point cloud model",
    "3D rendering model", "rendering image", "3D rendering image",
)  # fmt: skip
PREFIXES = ("", "A ", *(f"A {noun} of {article}" for noun in _NOUNS for article in ("", "a ")))
SUFFIXES = (".", " with white background.", " with black context.")
PAPER_TEMPLATES = tuple(f"{prefix}{{}}{suffix}" for suffix in SUFFIXES for prefix in PREFIXES)
"""The paper's 60 templates, prefixes varying fastest [1].

[1] Qi et al., arXiv:2302.02318, section 4 (as released).
"""

MAX_TEMPLATE_FILE_BYTES = 2**24
"""Bytes of a file of templates."""
TemplateSource = int | str | Path | Sequence[str]


def load_templates(source: TemplateSource) -> list[str]:
    """Return sentences with `{}` for a name: 60 of the paper, 64 of ULIP, a file's, or a list.

    A file is .json, a list or with one under `templates`, or text with one sentence a line. Raises
    FileNotFoundError for a missing file and ValueError for sentences without `{}`, or none.
    """
    if source == 60:
        return [*PAPER_TEMPLATES]
    if source == 64:
        return _read(Path(str(files("recon.teachers") / "templates_64.json")))
    if isinstance(source, int):
        raise ValueError(f"there are 60 or 64 templates, not {source}: or name a file or a list")
    if isinstance(source, str | Path):
        found, where = _read(Path(source)), f"{source}: "
    else:
        found, where = [*source], ""
    if not found:
        raise ValueError(f"{where}holds no templates")
    check_printable(map(str, found), where or "templates")
    if wrong := [sentence for sentence in found if "{}" not in str(sentence)]:
        raise ValueError(
            f"{where}{wrong[0]!r}: each template needs {{}} where the name of the class goes"
        )
    return found


def _read(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of templates")
    if (size := path.stat().st_size) > MAX_TEMPLATE_FILE_BYTES:
        raise ValueError(f"{path}: has {size:,} bytes, no list of templates does")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON, or no text in UTF-8 ({error})") from error
    listed = held.get("templates") if isinstance(held, dict) else held
    if not isinstance(listed, list) or not all(isinstance(line, str) for line in listed):
        raise ValueError(f"{path}: holds no list of sentences, at the top or under `templates`")
    return listed


def build_prompts(category: str, templates: Sequence[str] = PAPER_TEMPLATES) -> list[str]:
    """Return a category's name in each template; the paper's 60 prompts by default."""
    return [template.replace("{}", category) for template in templates]
