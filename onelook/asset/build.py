"""Surface -> Asset: clean, simplify, unwrap, bake; each with a time cap and something plainer.

Surface -> ColoredMesh: clean, simplify, one colour per vertex.

T texture size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onelook.asset.asset import Asset, ColoredMesh, Textures
from onelook.report import Report
from onelook.surface import Surface
from onelook.time_cap import STEP_SECONDS, Capped

Array = np.ndarray
OPAQUE_FROM = 250  # of 255: alpha that counts as opaque
COLORED_TEXTURE = 1024  # pixels a side, where vertex colours are shown
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
    step_seconds: float = STEP_SECONDS,
) -> Asset:
    """A game-ready asset of at most about `decimation_target` faces and T x T textures.

    surface: canonical space (positions are kept). clean_options go to `clean`. Steps and figures
    are told to `report`. A step that takes longer than step_seconds is done in a plainer way, which
    a note and the figure "fallbacks" name. Raises SurfaceError when the surface holds nothing
    usable.
    """
    from onelook.asset.bake import bake
    from onelook.asset.fallback import unwrap_faces
    from onelook.asset.normals import vertex_normals
    from onelook.asset.unwrap import unwrap

    capped = Capped(report, step_seconds)
    reduced = _reduce(surface, decimation_target, capped, report, clean_options, device)
    vertices, faces = reduced.vertices, reduced.faces
    with report.step("unwrap"):
        unwrapped = capped(
            lambda: unwrap(vertices, faces, texture_size),
            lambda: unwrap_faces(faces, texture_size),
            "every face got a place of its own in the textures instead",
        )
        normals = vertex_normals(vertices, faces)[unwrapped.vertices_index]
    with report.step("bake"):

        def baked(size: int) -> Textures:
            return bake(
                vertices[unwrapped.vertices_index],
                normals,
                unwrapped.uvs,
                unwrapped.faces,
                reduced.full,
                size,
                project=reduced.is_simplified,
                samples=samples,
                normal_map=normal_map,
                on_progress=report.advance,
                device=device,
            )

        textures = capped(
            lambda: baked(texture_size),
            lambda: baked(max(1, texture_size // 4)),
            f"the textures have {texture_size // 4} pixels a side instead of {texture_size}",
        )
        alpha_mode = choose_alpha_mode(textures.base_color[..., 3])
        if alpha_mode == "OPAQUE":
            textures = _made_opaque(textures)
    report.figures.update(
        {
            "vertices": len(unwrapped.uvs),
            "charts": int(unwrapped.chart.max()) + 1,
            "uv_coverage": round(unwrapped.coverage, 4),
            "uv_padding": unwrapped.padding,
            "texture_size": textures.base_color.shape[0],
            "alpha_mode": alpha_mode,
        }
    )
    if normal_map and not reduced.is_simplified:
        report.note(
            f"normal_map is flat: the surface has {len(faces)} faces, and {decimation_target} may"
            " stay; lower decimation_target to bake detail into it"
        )
    return Asset(
        vertices=vertices[unwrapped.vertices_index],
        normals=normals,
        uvs=unwrapped.uvs,
        faces=unwrapped.faces,
        textures=textures,
        is_closed=reduced.is_closed,
        alpha_mode=alpha_mode,
    )


def build_colored_mesh(
    surface: Surface,
    *,
    decimation_target: int,
    report: Report,
    device: str | None = None,
    step_seconds: float = STEP_SECONDS,
) -> ColoredMesh:
    """The same without UVs and textures, which takes a fraction of the time; as `build_asset`."""
    from onelook.asset.bake import project
    from onelook.asset.normals import vertex_normals

    reduced = _reduce(
        surface, decimation_target, Capped(report, step_seconds), report, None, device
    )
    vertices, faces = reduced.vertices, reduced.faces
    normals = vertex_normals(vertices, faces)
    with report.step("bake"):
        points, directions = vertices, normals
        if reduced.is_simplified:
            points, directions = project(vertices, normals, reduced.full, device)
        material = surface.appearance.sample(points, directions)
        colors = np.column_stack([material.base_color, material.alpha])
    report.figures["vertices"] = len(vertices)
    return ColoredMesh(
        vertices,
        normals,
        faces,
        np.rint(255 * np.clip(colors, 0, 1)).astype(np.uint8),
        reduced.is_closed,
    )


def textured(mesh: ColoredMesh, device: str | None = None) -> Asset:
    """The mesh as a renderer wants it, its vertex colours baked into small textures."""
    from onelook.vertex_colors import VertexColors

    colors = VertexColors(mesh.vertices, mesh.faces, mesh.colors / np.float32(255), device=device)
    return build_asset(
        Surface(mesh.vertices, mesh.faces, colors),
        decimation_target=len(mesh.faces),
        texture_size=COLORED_TEXTURE,
        report=Report(),
        clean_options={"floater_share": 0.0, "drop_hidden": False},
        device=device,
    )


@dataclass(frozen=True)
class _Reduced:
    """The mesh of an asset, and the cleaned surface it came from."""

    vertices: Array
    faces: Array
    full: Surface
    is_simplified: bool
    is_closed: bool


def _reduce(
    surface: Surface,
    decimation_target: int,
    capped: Capped,
    report: Report,
    clean_options: dict[str, Any] | None,
    device: str | None,
) -> _Reduced:
    """Steps clean and simplify, and the figures of the mesh."""
    from onelook.asset.clean import clean, clean_roughly
    from onelook.asset.fallback import cluster
    from onelook.asset.simplify import simplify
    from onelook.asset.topology import face_parts, is_closed

    with report.step("clean"):
        sound = capped(
            lambda: clean(surface.vertices, surface.faces, device=device, **(clean_options or {})),
            lambda: clean_roughly(surface.vertices, surface.faces),
            "only floaters and what cannot be used were removed",
        )
    with report.step("simplify"):
        vertices, faces = sound.vertices, sound.faces
        is_simplified = len(faces) > decimation_target
        if is_simplified:
            vertices, faces = capped(
                lambda: simplify(sound.vertices, sound.faces, decimation_target),
                lambda: cluster(sound.vertices, sound.faces, decimation_target),
                "near vertices were merged instead, which keeps less detail",
            )
    closed = is_closed(faces)
    report.figures.update(
        {
            "faces": len(faces),
            "vertices": len(vertices),
            "faces_before": len(surface.faces),
            "components": face_parts(faces, len(vertices))[0],
            "watertight": closed,
        }
    )
    full = Surface(sound.vertices, sound.faces, surface.appearance)
    return _Reduced(vertices, faces, full, is_simplified, closed)


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
