"""The model file in the format that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onelook.asset.asset import Asset, ColoredMesh
from onelook.errors import OptionError

MODEL_SUFFIXES = {"glb": ".glb", "obj": ".zip", "ply": ".ply", "stl": ".stl"}


def write_model(
    asset: Asset | ColoredMesh,
    path: Path,
    *,
    format: str = "glb",
    texture_format: str = "png",
    geometry_compression: str = "none",
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write `asset` to `path`, which is there complete or not at all; same asset, same bytes.

    format: a key of MODEL_SUFFIXES; obj is a ZIP. texture_format, geometry_compression and extras
    are for GLB alone, the first two only where there are textures, see `write_glb`. Raises
    OptionError for another format, else as `write_glb`.
    """
    is_colored = isinstance(asset, ColoredMesh)
    if format == "glb":
        from onelook.asset.gltf import write_colored_glb, write_glb

        if is_colored:
            write_colored_glb(asset, path, extras=extras)
            return
        write_glb(
            asset,
            path,
            texture_format=texture_format,
            compression=geometry_compression,
            extras=extras,
        )
        return
    from onelook.asset import mesh_files

    writers = {
        "obj": mesh_files.write_colored_obj if is_colored else mesh_files.write_obj,
        "ply": mesh_files.write_ply,
        "stl": mesh_files.write_stl,
    }
    if format not in writers:
        raise OptionError(f"format must be one of {', '.join(MODEL_SUFFIXES)}, got {format!r}")
    writers[format](asset, path)
