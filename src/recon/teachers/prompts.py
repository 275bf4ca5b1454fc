"""Sentences around a category's name."""

_NOUNS = (
    "model", "image", "3D model", "rendering model", "point cloud", "point cloud model",
    "3D rendering model", "rendering image", "3D rendering image",
)  # fmt: skip
PREFIXES = ("", "A ", *(f"A {noun} of {article}" for noun in _NOUNS for article in ("", "a ")))
SUFFIXES = (".", " with white background.", " with black context.")


def prompts(category: str) -> list[str]:
    """Return the 60 prompts of a category, prefixes varying fastest [1].

    [1] Qi et al., arXiv:2302.02318, section 4 (as released).
    """
    return [f"{prefix}{category}{suffix}" for suffix in SUFFIXES for prefix in PREFIXES]
