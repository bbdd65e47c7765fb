"""Only local, listed models are used, and the outcome is always said."""

from __future__ import annotations

import importlib.util
import socket
import warnings

import cv2
import numpy as np
import pytest

from onelook.errors import OptionError
from onelook.foreground import rembg_session
from onelook.foreground.extract import extract_foreground
from onelook.foreground.rembg_session import network_mask

needs_rembg = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("rembg", "onnx")),
    reason="rembg and onnx are not installed",
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    rembg_session._session.cache_clear()


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("REMBG_HOME", str(tmp_path))
    return tmp_path


def redness_model(red: float = 1.0, green: float = -1.0) -> bytes:
    """A network of one layer with U2-Net's input and output: how red is each pixel?"""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = [1, 3, 320, 320]
    weights = np.float32([red, green, 0]).reshape(1, 3, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "weights"], ["mask"], kernel_shape=[1, 1])],
        "redness",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, 320, 320])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def red_disc_between_green_ones(side: int = 360) -> np.ndarray:
    """Only a network that knows red can tell which of the discs is meant."""
    rgb = np.full((side, side, 3), 235, np.uint8)
    for column in (0.2, 0.8):
        cv2.circle(rgb, (int(column * side), side // 2), side // 9, (40, 170, 60), -1, cv2.LINE_AA)
    cv2.circle(rgb, (side // 2, side // 2), side // 8, (200, 40, 50), -1, cv2.LINE_AA)
    return rgb


@needs_rembg
@pytest.mark.parametrize("place", ["models/u2net/u2net.onnx", "flat"])
def test_a_local_model_is_found_and_decides(studio, home, monkeypatch, place):
    if place == "flat":  # rembg's older layout
        monkeypatch.delenv("REMBG_HOME")
        monkeypatch.setenv("U2NET_HOME", str(home))
        place = "u2net.onnx"
    file = home / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(redness_model())
    found = extract_foreground(studio.png(red_disc_between_green_ones()))
    assert found.method == "rembg:u2net" and found.notes == ()
    solid = found.image[..., 3] > 204
    assert solid.sum() == pytest.approx(np.pi * (360 // 8) ** 2, rel=0.03)
    assert (found.image[solid][:, 0] > 150).all()  # nothing green came along
    off = extract_foreground(studio.png(red_disc_between_green_ones()), rembg_model="none")
    assert off.method == "grabcut"
    assert (off.image[..., 3] > 204).sum() > 2 * solid.sum()  # all three discs


@needs_rembg
def test_a_model_of_ones_own_is_used_by_name(studio, home, monkeypatch):
    file = home / "models" / "u2net_custom" / "u2net_custom.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(redness_model())
    content = studio.png(red_disc_between_green_ones())
    assert extract_foreground(content).method == "grabcut"  # never by itself
    assert extract_foreground(content, rembg_model="u2net_custom").method == "rembg:u2net_custom"
    monkeypatch.setenv("ONELOOK_REMBG_MODEL", "u2net_custom")
    assert extract_foreground(content).method == "rembg:u2net_custom"


@needs_rembg
def test_a_file_that_is_no_model_is_said_and_passed_over(studio, home):
    file = home / "models" / "silueta" / "silueta.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a model")
    found = extract_foreground(studio.png(red_disc_between_green_ones()))
    assert found.method == "grabcut"
    assert found.notes == (
        "The background removal model silueta could not be opened, so it was not used.",
    )


@needs_rembg
def test_a_model_that_finds_nothing_is_said_and_passed_over(studio, home):
    file = home / "models" / "u2netp" / "u2netp.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(redness_model(red=0.0, green=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = extract_foreground(studio.png(red_disc_between_green_ones()))
    assert found.method == "grabcut"
    assert "found nothing" in found.notes[0]


@pytest.mark.parametrize("name", ["bria-rmbg", "withoutbg", "atlascloud", "sam", "u2nett", "../x"])
def test_models_that_fetch_send_or_do_not_exist_are_refused(studio, name):
    with pytest.raises(OptionError, match="Unknown background removal model"):
        extract_foreground(studio.png(red_disc_between_green_ones()), rembg_model=name)


def test_the_environment_is_held_to_the_same_list(monkeypatch):
    monkeypatch.setenv("ONELOOK_REMBG_MODEL", "withoutbg")
    with pytest.raises(OptionError, match="withoutbg"):
        network_mask(red_disc_between_green_ones())


def test_a_model_that_is_asked_for_and_missing_is_said(studio, home):
    found = extract_foreground(
        studio.png(red_disc_between_green_ones()), rembg_model="isnet-general-use"
    )
    assert found.method == "grabcut"
    assert "isnet-general-use is not in rembg's folder" in found.notes[0]


def test_without_a_model_nothing_is_said(home):
    answer = network_mask(red_disc_between_green_ones())
    assert answer.mask is None and answer.note == ""


@needs_rembg
def test_the_list_holds_only_local_sessions_of_rembg():
    from rembg.sessions import sessions_class

    known = {session.name(): session for session in sessions_class}
    for name in rembg_session.SESSIONS + rembg_session.CUSTOM_SESSIONS:
        assert known[name].is_local() and not known[name].requires_credentials()
    folders = rembg_session._folders("u2net")
    assert str(folders[0]) == known["u2net"].model_dir()
    assert str(folders[1]) == known["u2net"].legacy_home()
