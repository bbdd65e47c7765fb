"""Cut a mesh into compact parts of about equal size, so that charts are found in linear time.

N vertices, M faces.
"""

from __future__ import annotations

import numpy as np

from onelook.asset.normals import face_normals

Array = np.ndarray
NORMAL_WEIGHT = 0.15  # of a unit normal against a mesh of size 1: keeps bends within a part small


def split_parts(vertices: Array, faces: Array, part_faces: int = 800) -> list[Array]:
    """Faces of each part: vertices (N, 3), faces (M, 3) -> arrays of face indices, ascending.

    A k-d tree over face centres and normals, halved along its most spread axis until no part has
    more than `part_faces` faces; so every part has between half of that and all of it. A part may
    have several connected pieces.
    """
    features = np.empty((len(faces), 6), np.float32)
    features[:, :3] = vertices[faces].mean(axis=1)
    extent = float(np.ptp(features[:, :3], axis=0).max()) or 1.0
    features[:, :3] /= extent
    features[:, 3:] = NORMAL_WEIGHT * face_normals(vertices, faces)[0]
    parts, todo = [], [np.arange(len(faces))]
    while todo:
        part = todo.pop()
        if len(part) <= part_faces:
            parts.append(np.sort(part))
            continue
        inside = features[part]
        axis = int(np.argmax(inside.var(axis=0)))
        half = len(part) // 2
        order = np.argpartition(inside[:, axis], half)
        todo += [part[order[half:]], part[order[:half]]]
    return parts
