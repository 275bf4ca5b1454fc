"""Results of a sweep that cannot be read are named."""

from pathlib import Path

import pytest

from recon.cli.multirun import main


@pytest.mark.parametrize("results", ["{", "[]", '{"overall_accuracy": {"mean": "x"}}'])
def test_unreadable_results_of_a_sweep_are_named(results: str, tmp_path: Path) -> None:
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("- a=1\n")
    (tmp_path / "0" / "results.json").write_text(results)
    with pytest.raises(SystemExit, match=r"error: .*results\.json: not a readable"):
        main([str(tmp_path)])
