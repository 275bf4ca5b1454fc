"""Build text prompts: templates of sentences around a category name."""

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
"""Maximum size of a file of templates, in bytes."""
TemplateSource = int | str | Path | Sequence[str]


def load_templates(source: TemplateSource) -> list[str]:
    """Return sentences with `{}` in place of the category name.

    `source` is 60 (the paper's templates), 64 (ULIP's), a file, or a list of sentences. A .json
    file contains a list, at the top level or under `templates`. Other files have a sentence per
    line.

    Raises FileNotFoundError for a missing file, and ValueError if there are no sentences or one
    lacks `{}`.
    """
    if source == 60:
        return [*PAPER_TEMPLATES]
    if source == 64:
        return _read_template_file(Path(str(files("recon.teachers") / "templates_64.json")))
    if isinstance(source, int):
        raise ValueError(f"templates must be 60, 64, a file or a list of sentences, got {source}")
    if isinstance(source, str | Path):
        templates, prefix = _read_template_file(Path(source)), f"{source}: "
    else:
        templates, prefix = [*source], ""
    if not templates:
        raise ValueError(f"{prefix}contains no templates")
    check_printable(map(str, templates), prefix or "templates")
    if invalid := [sentence for sentence in templates if "{}" not in str(sentence)]:
        raise ValueError(
            f"{prefix}{invalid[0]!r}: each template needs {{}} in place of the class name"
        )
    return templates


def _read_template_file(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such template file")
    if (size := path.stat().st_size) > MAX_TEMPLATE_FILE_BYTES:
        raise ValueError(
            f"{path}: has {size:,} bytes, but a template file has at most "
            f"{MAX_TEMPLATE_FILE_BYTES:,}"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON, or not UTF-8 text ({error})") from error
    sentences = content.get("templates") if isinstance(content, dict) else content
    if not isinstance(sentences, list) or not all(isinstance(line, str) for line in sentences):
        raise ValueError(
            f"{path}: contains no list of sentences, at the top level or under `templates`"
        )
    return sentences


def build_prompts(category: str, templates: Sequence[str] = PAPER_TEMPLATES) -> list[str]:
    """Insert a category name into each template, by default the paper's 60."""
    return [template.replace("{}", category) for template in templates]
