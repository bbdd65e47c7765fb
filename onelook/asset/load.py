"""Read a textured GLB back as an Asset: what `onelook render` and the quality checks look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onelook.asset.asset import Asset, Textures
from onelook.asset.normals import vertex_normals
from onelook.errors import SurfaceError


def load_glb(path: Path) -> Asset:
    """A GLB with one textured mesh -> Asset, vertices where the file has them.

    Raises SurfaceError when the file holds no mesh, several meshes, or one without UVs and texture.
    """
    import trimesh

    scene = trimesh.load_scene(path, process=False)
    meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh)]
    if len(meshes) != 1:
        raise SurfaceError(f"a file with one mesh was expected, this one has {len(meshes)}")
    mesh = meshes[0]
    material = getattr(mesh.visual, "material", None)
    uvs = getattr(mesh.visual, "uv", None)
    if uvs is None or getattr(material, "baseColorTexture", None) is None:
        raise SurfaceError("a mesh with UVs and a base colour texture was expected")
    vertices = np.asarray(mesh.vertices, np.float32)
    faces = np.asarray(mesh.faces, np.int32)
    return Asset(
        vertices=vertices,
        normals=vertex_normals(vertices, faces),
        uvs=np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1).astype(np.float32),
        faces=faces,
        textures=_textures(material),
        is_closed=not material.doubleSided,
        alpha_mode=material.alphaMode or "OPAQUE",
    )


def _textures(material) -> Textures:
    metallic_roughness = None
    if material.metallicRoughnessTexture is not None:
        packed = np.asarray(material.metallicRoughnessTexture.convert("RGB"))
        metallic_roughness = packed[..., [2, 1]]  # glTF: G roughness, B metallic
    metallic, roughness = material.metallicFactor, material.roughnessFactor
    return Textures(
        base_color=np.asarray(material.baseColorTexture.convert("RGBA")),
        metallic_roughness=metallic_roughness,
        normal=None
        if material.normalTexture is None
        else np.asarray(material.normalTexture.convert("RGB")),
        metallic_factor=1.0 if metallic is None else float(metallic),
        roughness_factor=1.0 if roughness is None else float(roughness),
    )
