"""Collect the errors and warnings of a check of a data set, and statistics of its splits."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from recon.data.dataset import PointCloudDataset
from recon.data.file_notes import summarize_notes
from recon.data.prepared.shard import ShardSummary


class CheckReport:
    """Errors of unreadable samples, warnings and statistics of the splits of a data set."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: dict[str, None] = {}
        self.splits: dict[str, dict[str, Any]] = {}
        self._fingerprints: dict[int, tuple[str, str]] = {}

    def add_warning(self, message: str) -> None:
        """Add a warning unless it is there already."""
        self.warnings[message] = None

    def add_split(
        self,
        name: str,
        data: PointCloudDataset,
        shards: Sequence[ShardSummary],
        published_size: int | None,
    ) -> None:
        """Add the summaries of one split; compare its clouds with those of earlier splits."""
        rows = [row for shard in shards for row in shard.rows]
        for shard in shards:
            self.errors += shard.errors
        if published_size is not None and len(data) != published_size:
            self.add_warning(
                f"{name}: has {len(data):,} clouds, the published data set has {published_size:,}"
            )
        counts = [int(count) for shard in shards for count in shard.point_counts]
        max_coords = [float(value) for shard in shards for value in shard.max_abs_coords]
        labels = Counter(data.labels[rows].tolist() if len(data.labels) else [])
        empty = [c for number, c in enumerate(data.classes) if labels and not labels[number]]
        if empty:
            self.add_warning(f"{name}: has no cloud of {len(empty)} classes, such as {empty[0]}")
        if len(set(data.ids)) < len(data.ids):
            repeated = [i for i, count in Counter(data.ids).items() if count > 1]
            self.add_warning(
                f"{name}: lists {len(repeated)} ids more than once, such as {repeated[0]}"
            )
        self.splits[name] = {
            "clouds": len(data),
            "read": len(rows),
            "points": [min(counts, default=0), max(counts, default=0)],
            "largest_coordinate": [min(max_coords, default=0.0), max(max_coords, default=0.0)],
            "carried": sorted({field for shard in shards for field in shard.point_fields}),
            "pictures": sum(shard.num_images for shard in shards),
            "classes": sum(count > 0 for count in labels.values()),
        }
        self._compare_clouds(name, [data.ids[row] for row in rows], shards)
        for message in summarize_notes(note for shard in shards for note in shard.notes):
            self.add_warning(message)
        for message in data.file_warnings():
            self.add_warning(message)

    def _compare_clouds(self, name: str, ids: list[str], shards: Sequence[ShardSummary]) -> None:
        """Warn of clouds with the same points as another one in this or an earlier split."""
        fingerprints = [int(value) for shard in shards for value in shard.fingerprints]
        shared = Counter[str]()
        for cloud_id, fingerprint in zip(ids, fingerprints, strict=True):
            split, first_id = self._fingerprints.setdefault(fingerprint, (name, cloud_id))
            if split != name and first_id == cloud_id:
                shared[split] += 1
            elif split != name:
                self.add_warning(
                    f"the same points in two splits: {split} {first_id}, {name} {cloud_id}"
                )
            elif first_id != cloud_id:
                self.add_warning(f"{name}: the same points twice: {first_id}, {cloud_id}")
        for split, count in shared.items():
            self.add_warning(f"{count:,} clouds are both in {split} and in {name}")

    def to_dict(self) -> dict[str, Any]:
        """Return the content of report.json."""
        return {"splits": self.splits, "errors": self.errors, "remarks": list(self.warnings)}
