"""The memory a picture size needs, and the two ways of filling it: by bands, and by faces.

Both ways give the same faces and depths; see raster_kernels.py. H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from onelook.kernels import launch, thread_count
from onelook.render import band_kernels, face_kernels

_GROUPS = 1024  # of CUDA threads that share the large faces


def make_buffers(
    num_faces: int, width: int, height: int, device: str, face_ids: Any = None
) -> BandBuffers | FaceBuffers:
    """Buffers for the device; `face_ids` (H, W) int32 may be one layer of a larger warp array."""
    kind = BandBuffers if device.startswith("cpu") else FaceBuffers
    return kind(num_faces, width, height, device, face_ids)


class BandBuffers:
    """The CPU's way: every item draws all faces into its own band of rows.

    face_ids (H, W) int32 and depth (H, W) float32 are warp arrays that `draw` fills.
    """

    def __init__(self, num_faces: int, width: int, height: int, device: str, face_ids: Any = None):
        self._device = device
        self.face_ids = _face_ids(width, height, device) if face_ids is None else face_ids
        self.depth = wp.empty((height, width), dtype=wp.float32, device=device)
        self._rows = wp.empty(max(num_faces, 1), dtype=wp.int32, device=device)
        self._run_rows = wp.empty(-(-num_faces // band_kernels.RUN), dtype=wp.int32, device=device)

    def draw(self, screen: Any, faces: Any, cull: bool, front: BandBuffers | None = None) -> None:
        """Draw projected vertices and faces; with `front`, only what lies behind that layer."""
        height, width = self.face_ids.shape
        inputs = [screen, faces, cull, width, height, self._rows, self._run_rows]
        launch(band_kernels.find_rows, len(self._run_rows), inputs, self._device)
        band_rows = max(8, -(-height // (8 * thread_count())))  # 8 bands a thread even out the work
        bands = -(-height // band_rows)
        behind = front or self  # unread without a front
        inputs = [screen, faces, self._rows, self._run_rows, band_rows]
        inputs += [front is not None, behind.face_ids, behind.depth, self.face_ids, self.depth]
        launch(band_kernels.draw_band, bands, inputs, self._device, bands)


class FaceBuffers:
    """CUDA's way: every item is a face, and pixels take the smallest key offered to them.

    face_ids (H, W) int32 and depth (H, W) float32 are warp arrays that `draw` fills.
    """

    def __init__(self, num_faces: int, width: int, height: int, device: str, face_ids: Any = None):
        self._device = device
        self.face_ids = _face_ids(width, height, device) if face_ids is None else face_ids
        self.depth = wp.empty((height, width), dtype=wp.float32, device=device)
        self._keys = wp.empty((height, width), dtype=wp.int64, device=device)
        self._large_count = wp.zeros(1, dtype=wp.int32, device=device)
        self._large_faces = wp.empty(max(num_faces, 1), dtype=wp.int32, device=device)

    def draw(self, screen: Any, faces: Any, cull: bool, front: FaceBuffers | None = None) -> None:
        """Draw projected vertices and faces; with `front`, only what lies behind that layer."""
        height, width = self.face_ids.shape
        self._keys.fill_(face_kernels.EMPTY_KEY)
        self._large_count.zero_()
        behind = front or self  # unread without a front
        target = [front is not None, behind._keys, self._keys]
        target += [self._large_count, self._large_faces]
        launch(face_kernels.offer_faces, len(faces), [screen, faces, cull, *target], self._device)
        threads = _GROUPS * face_kernels.LANES
        inputs = [_GROUPS, screen, faces, *target]
        launch(face_kernels.offer_large_faces, threads, inputs, self._device)
        inputs = [self._keys, self.face_ids, self.depth]
        launch(face_kernels.read_keys, width * height, inputs, self._device)


def _face_ids(width: int, height: int, device: str) -> Any:
    return wp.empty((height, width), dtype=wp.int32, device=device)
