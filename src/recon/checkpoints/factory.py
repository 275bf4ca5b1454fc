"""Networks of the sizes that a set of weights has."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from recon.checkpoints.official_keys import Kind
from recon.checkpoints.reader import Weights, count_blocks
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.decoder import Decoder
from recon.models.encoder import MODALITIES, Encoder
from recon.models.heads import linear_head, mlp_head
from recon.models.point_mae import ACT, PointMAE
from recon.models.recon import Contrastive, PretrainingNetwork, Projections, ReCon
from recon.models.segmenter import Segmenter, thirds
from recon.models.two_tower import Tower, Towers, TwoTowers

Network = PretrainingNetwork | Classifier | Segmenter


def trunk_of(names: Collection[str]) -> str:
    """Return where the encoder of patch tokens is among names of weights."""
    for trunk in ("encoder.generative", "generative", "tower"):
        if any(name.startswith(f"{trunk}.") for name in names):
            return trunk
    return "encoder"


class Builder:
    """Build networks of the sizes that a set of weights has."""

    def __init__(self, weights: Weights, settings: dict[str, Any]) -> None:
        self.weights, self.state = weights, weights.state
        self.heads, self.stop_gradient = settings["num_heads"], settings["stop_gradient"]
        self.settings = settings
        self.grouper = PatchGrouper(
            settings["num_groups"],
            settings["group_size"],
            skip_near_origin=settings["skip_near_origin"],
        )

    def build(self, kind: Kind) -> Network:
        """Build the network that weights of this kind are for."""
        if kind == "classify":
            return self.classifier()
        return self.segmenter() if kind == "segment" else self.pretraining()

    def _sizes(self, prefix: str, queries: list[str]) -> dict[str, Any]:
        return {
            "dim": self.weights.width(f"{prefix}.norm"),
            "depth": count_blocks(self.state, rf"{re.escape(prefix)}\.blocks\.(\d+)\."),
            "heads": self.heads,
            "queries": queries,
            "patch_widths": [
                self.weights.width(f"{prefix}.embed.{layer}")
                for layer in ("point_in", "point_out", "joint_in")
            ],
        }

    def encoder(self) -> Encoder:
        names = ("encoder.queries.tokens.", "encoder.queries.positions.")
        queries = self.weights.modalities(*names, released=MODALITIES)
        return Encoder(stop_gradient=self.stop_gradient, **self._sizes("encoder", queries))

    def tower(self, prefix: str, released: Sequence[str] = ()) -> Tower:
        names = (f"{prefix}.query_tokens.", f"{prefix}.query_positions.")
        return Tower(**self._sizes(prefix, self.weights.modalities(*names, released=released)))

    def pretraining(self) -> PretrainingNetwork:
        trunk = trunk_of(self.state)
        dim = self.weights.width(f"{trunk}.norm")
        taught = () if trunk == "tower" else ("image", "text")
        widths = {
            name: self.weights.width(f"projections.{name}{'.0' if name == 'cls' else ''}")
            for name in self.weights.modalities("projections.", released=taught)
        }
        projections = Projections(dim, widths)
        if not self.weights.has("decoder."):
            if trunk == "tower":
                return ACT(self.grouper, self.tower(trunk, released=("cls",)))
            return Contrastive(self.grouper, self.encoder(), projections)
        decoder = Decoder(
            dim,
            depth=count_blocks(self.state, r"decoder\.blocks\.(\d+)\."),
            heads=self.heads,
            group_size=self.grouper.group_size,
        )
        if trunk == "generative":
            towers = self.tower("generative"), self.tower("contrastive", released=MODALITIES[1:])
            return TwoTowers(self.grouper, *towers, decoder, projections)
        if trunk == "tower":
            return PointMAE(self.grouper, self.tower(trunk), decoder)
        return ReCon(self.grouper, self.encoder(), decoder, projections)

    def classifier(self) -> Classifier:
        encoder: Encoder | Tower | Towers
        if self.weights.has("encoder.generative."):
            encoder = Towers(self.tower("encoder.generative"), self.tower("encoder.contrastive"))
        elif self.weights.family != "ReCon" or self.weights.has("encoder.query_"):
            encoder = self.tower("encoder", released=("cls",))
        else:
            encoder = self.encoder()
        layers = count_blocks(self.state, r"head\.(\d+)\.weight")
        last = max(int(name.split(".")[1]) for name in self.state if name.startswith("head."))
        head = linear_head if layers == 1 else mlp_head
        count = self.weights.width(f"head.{last}")
        return Classifier(self.grouper, encoder, count, head=head, names=self.settings["classes"])

    def segmenter(self) -> Segmenter:
        if self.weights.family != "ReCon":
            raise ValueError(
                f"{self.weights.path}: a segmenter of {self.weights.family}, whose head reads "
                "other features than this library's: load the pretrained encoder it began with"
            )
        joint = self.state.get("propagate.joint_in.weight")
        encoder, objects = self.encoder(), self.state.get("object_embed.project.weight")
        levels = len(thirds(len(encoder.blocks))) * encoder.dim
        return Segmenter(
            self.grouper,
            encoder,
            self.weights.width("point_head.out"),
            objects=None if objects is None else objects.shape[1],
            channels=3 if joint is None else joint.shape[1] - levels,
            hidden=self.weights.width("propagate.joint_in"),
            widths=[
                self.weights.width(layer)
                for layer in ("propagate.out", "point_head.joint_in", "point_head.middle")
            ],
            up=self.settings["up"],
            names=self.settings["classes"],
            object_names=self.settings["objects"],
            parts=self.settings["parts"],
        )
