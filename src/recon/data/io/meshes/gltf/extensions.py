"""glTF extensions: those that are applied, those that change no points, and all others."""

from collections.abc import Iterable

from recon.data.io.file_checks import UnsupportedContentError

APPLIED_EXTENSIONS = frozenset(
    {
        "EXT_mesh_gpu_instancing",
        "EXT_texture_webp",
        "KHR_draco_mesh_compression",
        "KHR_materials_pbrSpecularGlossiness",
        "KHR_mesh_quantization",
        "KHR_node_visibility",
        "KHR_texture_transform",
    }
)
"""Extensions that change points or colors, and are applied."""
PASSIVE_PREFIXES = (
    "ADOBE_materials_", "EXT_feature_metadata", "EXT_instance_features", "EXT_lights_",
    "EXT_materials_", "EXT_mesh_features", "EXT_structural_metadata", "EXT_texture_",
    "GODOT_", "KHR_animation_", "KHR_audio", "KHR_interactivity", "KHR_lights_", "KHR_materials_",
    "KHR_node_", "KHR_physics_", "KHR_texture_", "KHR_xmp", "MSFT_lod", "MSFT_texture_dds",
    "NV_materials_", "VRM", "CESIUM_primitive_outline", "FB_ngon_encoding",
)  # fmt: skip
"""Beginnings of names of extensions that leave points unchanged.

Where a texture needs another decoder, its surfaces have no colors, and a note says so.
"""
MESHOPT_EXTENSIONS = ("EXT_meshopt_compression", "KHR_meshopt_compression")


def check_required_extensions(names: Iterable[object]) -> None:
    """Raise ValueError for a required extension that is not supported."""
    for name in map(str, names):
        if name in MESHOPT_EXTENSIONS:
            continue  # refused where a buffer has no uncompressed copy
        if name not in APPLIED_EXTENSIONS and not name.startswith(PASSIVE_PREFIXES):
            raise UnsupportedContentError(
                f"it needs the extension {name!r:.100}, which is not supported: export it without"
            )
