import numpy as np

from recon.reports.colors import HEATMAP_COLORS, color_by_value


def test_heat_map_spans_zero_to_maximum() -> None:
    colors = color_by_value(np.array([0.0, 0.5, 1.0]))
    assert colors.tolist() == [
        HEATMAP_COLORS[0].tolist(),
        HEATMAP_COLORS[2].tolist(),
        HEATMAP_COLORS[-1].tolist(),
    ]
