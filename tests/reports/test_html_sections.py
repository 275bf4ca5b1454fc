from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon.reports.html_page import write_page
from recon.reports.html_sections import (
    build_curve_sections,
    build_introspection_sections,
    plot_curves,
)
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


def test_each_training_curve_names_its_quantity_on_the_y_axis() -> None:
    curves = [
        "total",
        "image",
        "loss",
        "val/accuracy",
        "val/instance_miou",
        "svm/accuracy_held_out",
    ]
    figure = plot_curves({name: {1: 1.0, 2: 2.0} for name in curves})
    labels = {axes.get_title(): axes.get_ylabel() for axes in figure.axes if axes.get_visible()}
    accuracy, miou = "accuracy (fraction)", "mIoU (fraction)"
    assert labels == dict(
        zip(curves, ["loss", "loss", "loss", accuracy, miou, accuracy], strict=True)
    )
