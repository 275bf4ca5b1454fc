from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon.reports.html_page import write_page
from recon.reports.html_sections import build_curve_sections, build_introspection_sections
from recon.reports.report_data import ReportData

ParsePage = Callable[[Path], Any]


def list_sections(report_data: ReportData, path: Path, parse_page: ParsePage) -> list[str]:
    """Write all sections into a page; return their names."""
    write_page(
        path,
        "T",
        "L",
        [
            *build_introspection_sections(report_data, subject="Shapes"),
            *build_curve_sections(report_data),
        ],
    )
    return parse_page(path).sections


def test_sections_appear_only_with_data(
    tmp_path: Path, report_data: ReportData, parse_page: ParsePage
) -> None:
    page = tmp_path / "a.html"
    assert list_sections(report_data, page, parse_page) == [
        "gallery", "gallery", "tsne", "curves", "confusion", "environment",
    ]  # fmt: skip
    assert list_sections(ReportData(), page, parse_page) == ["environment"]
    for field in ReportData._fields:
        single = ReportData(**{field: getattr(report_data, field)})
        assert len(list_sections(single, page, parse_page)) == 2, field
