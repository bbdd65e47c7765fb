"""What the libraries raise when memory runs out is told apart from what is a fault of ours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import warp as wp

from onelook.service.worker import _told

HUGE = 2**40  # bytes or elements; no machine has them


def test_numpy_opencv_and_warp_out_of_memory():
    with pytest.raises(MemoryError) as numpy_error:
        np.zeros(HUGE * 1024)
    assert _told(numpy_error.value)["kind"] == "OutOfMemory"
    with pytest.raises(RuntimeError) as warp_error:
        wp.empty((2**30, 2**20), dtype=wp.float32, device="cpu")
    assert _told(warp_error.value)["kind"] == "OutOfMemory"
    with pytest.raises(cv2.error) as opencv_error:
        cv2.resize(np.zeros((4, 4), np.uint8), (2**30, 2**30))
    assert _told(opencv_error.value)["kind"] == "OutOfMemory"


def test_another_error_is_told_by_class_and_places_alone():
    try:
        raise KeyError("/home/somebody/secret")
    except KeyError as error:
        told = _told(error)
    assert told["kind"] == "Unexpected" and told["sentence"] == ""
    assert "secret" not in str(told) and told["places"][-1].startswith(__name__)
