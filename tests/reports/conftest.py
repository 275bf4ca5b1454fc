"""Report data of every kind, and a parser of HTML reports."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from recon.reports.report_data import (
    AttentionMap,
    ConfusionMatrix,
    ReconstructedShape,
    ReportData,
    TSNEEmbedding,
)


class ParsedPage(HTMLParser):
    """Tags, links and section names of a page; asserts that tags are closed in order."""

    VOID_TAGS = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sections: list[str] = []
        self._open_tags: list[str] = []
        self.feed(text)
        assert self._open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = dict(attrs)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "section":
            self.sections.append(attributes.get("class") or attributes["id"] or "")
        if tag not in self.VOID_TAGS:
            self._open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open_tags.pop() == tag


def _parse_page(path: Path) -> ParsedPage:
    text = path.read_text()
    assert len(text) < 5_000_000
    page = ParsedPage(text)
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    return page


@pytest.fixture(scope="session")
def parse_page() -> Callable[[Path], ParsedPage]:
    """Return a function that parses a page and asserts that it loads no other file."""
    return _parse_page


@pytest.fixture
def report_data() -> ReportData:
    """Return report data in which no part is empty."""
    rng = np.random.default_rng(0)

    def draw_cloud(count: int = 40) -> np.ndarray:
        return rng.uniform(-0.5, 0.5, (count, 3)).astype(np.float32)

    gray = np.full((40, 3), 9, np.uint8)
    return ReportData(
        {"total": {step: 1.0 / step for step in range(1, 40)}},
        [ReconstructedShape("a <b>", draw_cloud(), gray, draw_cloud(20), draw_cloud(16))],
        [AttentionMap("c", draw_cloud(), {"image": rng.random(40), "text": rng.random(40)})],
        TSNEEmbedding(
            rng.random((6, 2)), np.array([0, 1, 1, 0, -1, 2]), list("pqrstu"), ["x", "y", "z"]
        ),
        ConfusionMatrix(np.array([[2, 1, 0], [0, 3, 0], [0, 0, 0]]), ["x", "y", "z"]),
    )
