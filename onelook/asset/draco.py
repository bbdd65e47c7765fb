"""Squeeze a mesh with Draco, for glTF's KHR_draco_mesh_compression; DracoPy does the work.

Numbers are rounded to a fixed count of bits and coded from their neighbours, which takes the
geometry to a tenth. Vertices at one position stay at one position, so a closed mesh stays closed.
DracoPy is an optional library (Apache-2.0): the extra `draco` brings it.

N vertices, M faces, K vertices after coding.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np

from onelook.errors import OptionError

Array = np.ndarray

POSITION_BITS = 14  # of the longest side: steps of 1/16384
UV_BITS = 16  # an eighth of a texel of the largest texture
NORMAL_BITS = 10  # on the octahedron: about 0.1 degrees
LEVEL = 7  # of 10: above it, files hardly shrink


@dataclass(frozen=True)
class DracoMesh:
    """A mesh as Draco coded it.

    content: the coded bytes. ids: Draco's number of each glTF attribute. positions (K, 3) float32
    and face_count: what a decoder will get, which the file's accessors must announce.
    """

    content: bytes
    ids: dict[str, int]
    positions: Array
    face_count: int


def require_draco() -> None:
    """Raises OptionError, naming the extra to install, where DracoPy is missing."""
    if importlib.util.find_spec("DracoPy") is None:
        raise OptionError(
            "geometry_compression draco needs the library DracoPy, which is not installed; get it"
            " with: pip install 'onelook[draco]'"
        )


def encode_draco(
    positions: Array, normals: Array, uvs: Array, faces: Array, tangents: Array | None = None
) -> DracoMesh:
    """Code a mesh: positions, normals (N, 3), uvs (N, 2), faces (M, 3), tangents (N, 4) or None.

    Vertices come out in another order, equal ones once; tangents are kept exactly. Same mesh, same
    bytes. Raises OptionError where DracoPy is missing.
    """
    require_draco()
    import DracoPy

    content = DracoPy.encode(
        positions.astype(np.float32),
        faces.astype(np.uint32),
        quantization_bits=POSITION_BITS,
        compression_level=LEVEL,
        tex_coord=uvs.astype(np.float64),  # it takes no other floats than these
        normals=normals.astype(np.float64),
        generic_attributes=None if tangents is None else {"TANGENT": tangents.astype(np.float32)},
        tex_coord_quantization_bits=UV_BITS,
        normal_quantization_bits=NORMAL_BITS,
    )
    decoded = DracoPy.decode(content)
    kinds = DracoPy.AttributeType
    names = {
        kinds.POSITION: "POSITION",
        kinds.NORMAL: "NORMAL",
        kinds.TEX_COORD: "TEXCOORD_0",
        kinds.GENERIC: "TANGENT",
    }
    ids = {names[entry["attribute_type"]]: entry["unique_id"] for entry in decoded.attributes}
    return DracoMesh(
        content=content,
        ids={name: ids[name] for name in names.values() if name in ids},
        positions=np.asarray(decoded.points, np.float32),
        face_count=len(decoded.faces),
    )
