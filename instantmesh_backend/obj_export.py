"""A mesh with a texture map as the original's `--export_texmap` writes it: OBJ, MTL and PNG.

Neither mirrored nor turned, unlike its OBJ with vertex colours: z is up and the side the picture
shows faces +x.

N vertices, K texture coordinates, M faces, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from instantmesh_backend.extract_mesh import ExtractedMesh

Array = np.ndarray

TEXTURE_SIZE = 1024  # infer_config of the originals
EMPTY = 3  # a pixel whose channels sum to no more takes the colour of its neighbours
_MTL = """newmtl material_0
Kd 1 1 1
Ka 0 0 0
Ks 0.4 0.4 0.4
Ns 10
illum 2
map_Kd {picture}
"""


@dataclass(frozen=True)
class TexturedObj:
    """The contents of three files that lie in one folder: <stem>.obj, <stem>.mtl, <stem>.png."""

    obj: bytes
    mtl: bytes
    png: bytes


def textured_obj(mesh: ExtractedMesh, stem: str, texture_size: int = TEXTURE_SIZE) -> TexturedObj:
    """Unwrap the mesh and ask the network for the colour of every texel."""
    from onelook.asset.texels import TexelGeometry
    from onelook.asset.unwrap import unwrap

    vertices, faces = mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy()
    layout = unwrap(vertices, faces, texture_size)
    spread = vertices[layout.vertices_index]
    flat = np.zeros_like(spread)  # normals, which colours do not depend on
    geometry = TexelGeometry(spread, flat, layout.uvs, layout.faces, texture_size, "cpu")
    piece = geometry.piece(0, texture_size)
    points = torch.from_numpy(geometry.points(piece).points).to(mesh.vertices.device)
    texture = np.zeros((texture_size * texture_size, 3), np.float32)
    with torch.inference_mode():
        texture[piece.texels] = mesh.colors(points).cpu().numpy()
    texture = texture.reshape(texture_size, texture_size, 3)
    original_faces = layout.vertices_index[layout.faces]
    return obj_with_mtl(stem, vertices, layout.uvs, original_faces, layout.faces, texture)


def obj_with_mtl(
    stem: str, vertices: Array, uvs: Array, faces: Array, uv_faces: Array, texture: Array
) -> TexturedObj:
    """vertices (N, 3), uvs (K, 2), faces and uv_faces (M, 3) from 0; texture (H, W, 3) as
    `texture_pixels` takes it."""
    lines = [f"mtllib {stem}.mtl\n"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}\n" for u, v in uvs.tolist()]
    lines += ["usemtl material_0\n"]
    for corners in (np.stack([faces, uv_faces], axis=2) + 1).tolist():
        lines.append(f"f {' '.join(f'{vertex}/{uv}' for vertex, uv in corners)}\n")
    picture = cv2.cvtColor(texture_pixels(texture), cv2.COLOR_RGB2BGR)
    written, encoded = cv2.imencode(".png", picture)
    assert written
    obj = "".join(lines).encode()
    return TexturedObj(obj, _MTL.format(picture=f"{stem}.png").encode(), encoded.tobytes())


def texture_pixels(texture: Array) -> Array:
    """texture (H, W, 3) float32, about 0..1, row 0 at v = 0 -> the PNG's pixels (H, W, 3) uint8,
    its last row at v = 0; gaps of one pixel are filled from their neighbours."""
    scaled = np.clip(texture * 255, 0, 255)
    widened = cv2.dilate(scaled, np.ones((3, 3), np.float32))
    is_empty = scaled.sum(axis=2, keepdims=True) <= EMPTY
    return np.where(is_empty, widened, scaled).astype(np.uint8)[::-1]
