import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recon.layers.grouping import PatchGrouper
from recon.layers.patch_embed import FoldedPatchEmbed, PatchEmbed
from recon.models.decoder import Decoder
from recon.models.inference import fold_batch_norms
from recon.models.recon import Projections
from recon.models.two_tower import Tower, TwoTowers


@pytest.mark.slow
def test_networks_compile_without_graph_breaks() -> None:
    program = Path(__file__).with_name("compile_fullgraph.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ReCon 2 graphs" in done.stdout
    assert "Segmenter" in done.stdout


def test_all_patch_embeddings_are_folded() -> None:
    towers = [
        Tower(24, depth=2, heads=3, queries=q, patch_widths=(8, 16, 16)) for q in ((), ("a",))
    ]
    decoder = Decoder(24, depth=1, heads=3, group_size=8)
    network = TwoTowers(PatchGrouper(10, 8), *towers, decoder, Projections(24, {})).eval()
    folded, points = fold_batch_norms(network), torch.randn(2, 60, 3)
    assert not any(isinstance(module, PatchEmbed) for module in folded.modules())
    assert sum(isinstance(module, FoldedPatchEmbed) for module in folded.modules()) == 2
    assert_close(folded.encode(points).tokens, network.encode(points).tokens, rtol=1e-5, atol=1e-5)
    assert any(isinstance(module, PatchEmbed) for module in network.modules())
