from pathlib import Path

import numpy as np

from recon.reports.report_data import (
    ReconstructedShape,
    ReportData,
    read_report_data,
    write_report_data,
)


def test_report_data_round_trips_through_its_file(tmp_path: Path, report_data: ReportData) -> None:
    write_report_data(tmp_path, report_data)
    restored = read_report_data(tmp_path)
    assert restored.curves == report_data.curves
    for field in ReconstructedShape._fields:
        assert np.array_equal(
            getattr(restored.reconstructions[0], field),
            getattr(report_data.reconstructions[0], field),
        )
    assert restored.attention_maps[0].weights.keys() == {"image", "text"}
    assert np.array_equal(
        restored.attention_maps[0].weights["text"], report_data.attention_maps[0].weights["text"]
    )
    assert restored.tsne is not None
    assert report_data.tsne is not None
    assert np.array_equal(restored.tsne.coordinates, report_data.tsne.coordinates)
    assert restored.tsne.classes == report_data.tsne.classes
    assert restored.confusion_matrix is not None
    assert restored.confusion_matrix.counts.tolist() == [[2, 1, 0], [0, 3, 0], [0, 0, 0]]
    write_report_data(tmp_path, ReportData())
    assert read_report_data(tmp_path) == ReportData({}, [], [])
