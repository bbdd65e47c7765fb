"""Surface -> Asset: clean, simplify, unwrap, bake.

T texture size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from onelook.asset.asset import Asset, Textures
from onelook.report import Report
from onelook.surface import Surface

Array = np.ndarray
OPAQUE_FROM = 250  # of 255: alpha that counts as opaque
TRANSLUCENT_SHARE = 0.005  # of all texels: fewer translucent ones are taken for noise


def build_asset(
    surface: Surface,
    *,
    decimation_target: int,
    texture_size: int,
    report: Report,
    normal_map: bool = False,
    samples: int = 1,
    clean_options: dict[str, Any] | None = None,
    device: str | None = None,
) -> Asset:
    """A game-ready asset of at most about `decimation_target` faces and T x T textures.

    surface: canonical space (positions are kept). clean_options go to `clean`. Steps and figures
    are told to `report`. Raises SurfaceError when the surface holds nothing usable.
    """
    from onelook.asset.bake import bake
    from onelook.asset.clean import clean
    from onelook.asset.normals import vertex_normals
    from onelook.asset.simplify import simplify
    from onelook.asset.topology import face_parts, is_closed
    from onelook.asset.unwrap import unwrap

    with report.step("clean"):
        sound = clean(surface.vertices, surface.faces, device=device, **(clean_options or {}))
    with report.step("simplify"):
        vertices, faces = sound.vertices, sound.faces
        is_simplified = len(faces) > decimation_target
        if is_simplified:
            vertices, faces = simplify(vertices, faces, decimation_target)
    with report.step("unwrap"):
        unwrapped = unwrap(vertices, faces, texture_size)
        normals = vertex_normals(vertices, faces)[unwrapped.vertices_index]
    with report.step("bake"):
        textures = bake(
            vertices[unwrapped.vertices_index],
            normals,
            unwrapped.uvs,
            unwrapped.faces,
            Surface(sound.vertices, sound.faces, surface.appearance),
            texture_size,
            project=is_simplified,
            samples=samples,
            normal_map=normal_map,
            on_progress=report.advance,
            device=device,
        )
        alpha_mode = choose_alpha_mode(textures.base_color[..., 3])
        if alpha_mode == "OPAQUE":
            textures = _made_opaque(textures)
    closed = is_closed(faces)
    report.figures.update(
        {
            "faces": len(faces),
            "vertices": len(unwrapped.uvs),
            "faces_before": len(surface.faces),
            "components": face_parts(faces, len(vertices))[0],
            "watertight": closed,
            "charts": int(unwrapped.chart.max()) + 1,
            "uv_coverage": round(unwrapped.coverage, 4),
            "uv_padding": unwrapped.padding,
            "texture_size": texture_size,
            "alpha_mode": alpha_mode,
        }
    )
    return Asset(
        vertices=vertices[unwrapped.vertices_index],
        normals=normals,
        uvs=unwrapped.uvs,
        faces=unwrapped.faces,
        textures=textures,
        is_closed=closed,
        alpha_mode=alpha_mode,
    )


def choose_alpha_mode(alpha: Array) -> str:
    """glTF's alpha mode for an alpha image (T, T) uint8.

    OPAQUE unless a real share of the texels is translucent; MASK where nearly all of those are
    fully transparent, else BLEND.
    """
    counts = np.bincount(alpha.ravel(), minlength=256)
    translucent = int(counts[:OPAQUE_FROM].sum())
    if translucent < TRANSLUCENT_SHARE * alpha.size:
        return "OPAQUE"
    between = int(counts[16:OPAQUE_FROM].sum())
    return "MASK" if between < 0.2 * translucent else "BLEND"


def _made_opaque(textures: Textures) -> Textures:
    if textures.base_color[..., 3].min() == 255:
        return textures
    base_color = textures.base_color.copy()
    base_color[..., 3] = 255
    return replace(textures, base_color=base_color)
