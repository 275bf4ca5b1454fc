"""Build the network of a checkpoint: its type and sizes are read from the weights."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from recon.checkpoints.official_keys import NetworkKind
from recon.checkpoints.reader import CheckpointWeights, count_blocks
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier
from recon.models.decoder import Decoder
from recon.models.encoder import MODALITIES, Encoder
from recon.models.heads import linear_head, mlp_head
from recon.models.point_mae import ACT, PointMAE
from recon.models.recon import ContrastiveNetwork, PretrainingNetwork, Projections, ReCon
from recon.models.segmenter import Segmenter, default_out_indices
from recon.models.two_tower import Tower, TwoTowerEncoder, TwoTowers

Network = PretrainingNetwork | Classifier | Segmenter


def find_encoder_prefix(names: Collection[str]) -> str:
    """Return the prefix of the patch encoder's parameter names."""
    for prefix in ("encoder.generative", "generative", "tower"):
        if any(name.startswith(f"{prefix}.") for name in names):
            return prefix
    return "encoder"


class NetworkBuilder:
    """Build a network: sizes are read from the weights, all other properties from `settings`."""

    def __init__(self, weights: CheckpointWeights, settings: dict[str, Any]) -> None:
        self.weights, self.state = weights, weights.state_dict
        self.heads, self.stop_gradient = settings["num_heads"], settings["stop_gradient"]
        self.settings = settings
        self.grouper = PatchGrouper(
            settings["num_groups"],
            settings["group_size"],
            skip_near_origin=settings["skip_near_origin"],
        )

    def build(self, kind: NetworkKind) -> Network:
        """Build the network of the given kind."""
        if kind == "classify":
            return self._build_classifier()
        return self._build_segmenter() if kind == "segment" else self._build_pretraining()

    def _read_sizes(self, prefix: str, queries: list[str]) -> dict[str, Any]:
        return {
            "dim": self.weights.out_features(f"{prefix}.norm"),
            "depth": count_blocks(self.state, rf"{re.escape(prefix)}\.blocks\.(\d+)\."),
            "heads": self.heads,
            "queries": queries,
            "patch_widths": [
                self.weights.out_features(f"{prefix}.embed.{layer}")
                for layer in ("point_in", "point_out", "joint_in")
            ],
        }

    def _build_encoder(self) -> Encoder:
        prefixes = ("encoder.queries.tokens.", "encoder.queries.positions.")
        queries = self.weights.find_modalities(*prefixes, official_modalities=MODALITIES)
        return Encoder(stop_gradient=self.stop_gradient, **self._read_sizes("encoder", queries))

    def _build_tower(self, prefix: str, official_queries: Sequence[str] = ()) -> Tower:
        prefixes = (f"{prefix}.query_tokens.", f"{prefix}.query_positions.")
        queries = self.weights.find_modalities(*prefixes, official_modalities=official_queries)
        return Tower(**self._read_sizes(prefix, queries))

    def _build_pretraining(self) -> PretrainingNetwork:
        trunk = find_encoder_prefix(self.state)
        dim = self.weights.out_features(f"{trunk}.norm")
        is_encoder = not (self.weights.has_prefix("decoder.") or self._has_projections())
        official_targets = () if trunk == "tower" or is_encoder else ("image", "text")
        modalities = self.weights.find_modalities(
            "projections.", official_modalities=official_targets
        )
        widths = {
            name: self.weights.out_features(f"projections.{name}{'.0' if name == 'cls' else ''}")
            for name in modalities
        }
        projections = Projections(dim, widths)
        if not self.weights.has_prefix("decoder."):
            if trunk == "tower":
                queries = ("cls",) if self.weights.family == "ACT" else ()
                return ACT(self.grouper, self._build_tower(trunk, official_queries=queries))
            return ContrastiveNetwork(self.grouper, self._build_encoder(), projections)
        decoder = Decoder(
            dim,
            depth=count_blocks(self.state, r"decoder\.blocks\.(\d+)\."),
            heads=self.heads,
            group_size=self.grouper.group_size,
        )
        if trunk == "generative":
            towers = (
                self._build_tower("generative"),
                self._build_tower("contrastive", official_queries=MODALITIES[1:]),
            )
            return TwoTowers(self.grouper, *towers, decoder, projections)
        if trunk == "tower":
            return PointMAE(self.grouper, self._build_tower(trunk), decoder)
        return ReCon(self.grouper, self._build_encoder(), decoder, projections)

    def _has_projections(self) -> bool:
        return self.weights.has_prefix("projections.")

    def _build_classifier(self) -> Classifier:
        encoder: Encoder | Tower | TwoTowerEncoder
        if self.weights.has_prefix("encoder.generative."):
            encoder = TwoTowerEncoder(
                self._build_tower("encoder.generative"), self._build_tower("encoder.contrastive")
            )
        elif self.weights.family != "ReCon" or self.weights.has_prefix("encoder.query_"):
            encoder = self._build_tower("encoder", official_queries=("cls",))
        else:
            encoder = self._build_encoder()
        num_layers = count_blocks(self.state, r"head\.(\d+)\.weight")
        last_layer = max(int(name.split(".")[1]) for name in self.state if name.startswith("head."))
        return Classifier(
            self.grouper,
            encoder,
            self.weights.out_features(f"head.{last_layer}"),
            head=linear_head if num_layers == 1 else mlp_head,
            class_names=self.settings["classes"],
        )

    def _build_segmenter(self) -> Segmenter:
        if self.weights.family != "ReCon":
            raise ValueError(
                f"{self.weights.path}: a segmenter of {self.weights.family} cannot be loaded: its "
                "head reads other features than this library's; load the pretrained encoder it was "
                "fine-tuned from"
            )
        joint_weight = self.state.get("propagate.joint_in.weight")
        object_weight = self.state.get("object_embed.project.weight")
        encoder = self._build_encoder()
        token_channels = len(default_out_indices(len(encoder.blocks))) * encoder.dim
        return Segmenter(
            self.grouper,
            encoder,
            self.weights.out_features("point_head.out"),
            num_objects=None if object_weight is None else object_weight.shape[1],
            channels=3 if joint_weight is None else joint_weight.shape[1] - token_channels,
            hidden=self.weights.out_features("propagate.joint_in"),
            widths=[
                self.weights.out_features(layer)
                for layer in ("propagate.out", "point_head.joint_in", "point_head.middle")
            ],
            up=self.settings["up"],
            class_names=self.settings["classes"],
            object_names=self.settings["objects"],
            parts=self.settings["parts"],
        )
