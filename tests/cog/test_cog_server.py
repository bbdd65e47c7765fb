"""`predict.py` behind the real Cog server: what a client sends, gets, and must not get."""

from __future__ import annotations

import http.client
import http.server
import io
import json
import threading
import time

import av
import numpy as np
import pytest
import trimesh
from helpers.cog_schema import ROOT, SCHEMA_FILE
from helpers.cog_server import CogServer, data_url, decode_data_url
from helpers.gltf_check import check_glb
from helpers.pictures import mushroom_png
from PIL import Image

from onelook.engine import OUTPUTS
from onelook.options import Options

PICTURE = data_url(mushroom_png())
SMALL = {"decimation_target": 1000, "texture_size": 256}
CUT_OUT_ONLY = {"generate_model": False, "generate_video": False, "return_no_background": True}
LARGE = {"decimation_target": 2000000, "texture_size": 8192}
FAILED = "Prediction failed: Prediction failed: "  # Cog says it twice


@pytest.fixture(scope="session")
def complete(server):
    """The body of one prediction with all three files."""
    answer = server.predict(PICTURE, **SMALL, return_no_background=True)
    assert answer.code == 200
    assert answer.body["status"] == "succeeded", answer.body
    return answer.body


def scratch_files(server: CogServer) -> list[str]:
    """What lies in the scratch folder, which is the only thing in the server's temporary folder."""
    (scratch,) = server.tmp.iterdir()
    return sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*"))


def test_the_model_is_a_textured_closed_mesh_with_the_picture_in_front(complete, tmp_path):
    kind, content = decode_data_url(complete["output"]["model_file"])
    assert kind == "model/gltf-binary"
    (tmp_path / "model.glb").write_bytes(content)
    assert len(check_glb(tmp_path / "model.glb").faces) <= SMALL["decimation_target"]
    (mesh,) = trimesh.load_scene(io.BytesIO(content), file_type="glb").geometry.values()
    assert mesh.visual.material.baseColorTexture.size == (256, 256)
    assert max(mesh.extents) == pytest.approx(1, abs=1e-3)
    colors = mesh.visual.to_color().vertex_colors[:, :3].astype(int)
    front = mesh.vertex_normals[:, 2] > 0.5
    blue = front & (colors[:, 2] - colors[:, 0] > 60)
    x, y, _ = mesh.vertices[blue].mean(0)
    assert x < 0 < y  # the blue spot is on the left, above
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert mesh.volume > 0


def test_the_video_plays_everywhere(complete):
    kind, content = decode_data_url(complete["output"]["video"])
    assert kind == "video/mp4"
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it has arrived
    with av.open(io.BytesIO(content)) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert stream.average_rate == 30
        assert (stream.width, stream.height) == (512, 512)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 120
    assert np.ptp(frames[0].astype(int), axis=(0, 1)).max() > 60  # not one colour
    difference = np.abs(frames[0].astype(int) - frames[30]).mean()
    assert difference > 1  # it turns


def test_the_cut_out_is_the_subject_on_nothing(complete):
    kind, content = decode_data_url(complete["output"]["no_background_image"])
    assert kind == "image/png"
    image = Image.open(io.BytesIO(content))
    assert image.mode == "RGBA"
    assert image.width == image.height
    pixels = np.asarray(image)
    assert (pixels[[0, -1], :, 3] == 0).all() and (pixels[:, [0, -1], 3] == 0).all()
    assert 0.2 < (pixels[..., 3] > 127).mean() < 0.9


def test_the_metrics_say_what_was_used_and_how_long_it_took(complete):
    metrics = complete["metrics"]
    assert metrics["seed"] == 42
    assert metrics["model"] == "relief"
    assert metrics["predict_time"] > 0
    assert 0 < metrics["seconds"]["total"] <= metrics["predict_time"]
    assert metrics["faces"] <= SMALL["decimation_target"]
    expected = {name: getattr(Options(), name) for name in Options.__dataclass_fields__}
    assert metrics["options"] == expected | SMALL | {"return_no_background": True}


def test_the_log_says_which_model_was_chosen_and_why(complete):
    assert "model auto: chose relief" in complete["logs"]


def test_preview_contact_sheet_and_other_formats_come_back(server):
    body = server.predict(
        PICTURE, **SMALL, generate_video=False, format="ply", return_preview=True,
        return_contact_sheet=True,
    ).body  # fmt: skip
    assert body["status"] == "succeeded", body
    output = body["output"]
    assert output["video"] is None and output["no_background_image"] is None
    for name, mode, size in (
        ("preview_image", "RGBA", (512, 512)),
        ("contact_sheet", "RGBA", (1024, 512)),
    ):
        kind, content = decode_data_url(output[name])
        assert kind == "image/png"
        picture = Image.open(io.BytesIO(content))
        assert (picture.mode, picture.size) == (mode, size)
        pixels = np.asarray(picture).astype(int)
        assert ((pixels[..., 0] - pixels[..., 1] > 60) & (pixels[..., 3] > 0)).mean() > 0.02  # red
    _, content = decode_data_url(output["model_file"])
    mesh = trimesh.load(io.BytesIO(content), file_type="ply")
    assert len(mesh.faces) <= SMALL["decimation_target"] and mesh.volume > 0


def test_an_odd_video_size_fails_with_the_rule(server):
    error = server.predict(PICTURE, video_size=301).error
    assert error.endswith("video_size must be an even number from 256 to 1024, got 301")


def test_what_was_not_asked_for_is_null(server):
    output = server.predict(PICTURE, **CUT_OUT_ONLY).body["output"]
    assert output.pop("no_background_image").startswith("data:image/png;base64,")
    assert output == dict.fromkeys(set(OUTPUTS) - {"no_background_image"})


def test_the_server_publishes_the_checked_in_schema(server):
    answer = server.request("GET", "/openapi.json")
    assert (answer.code, answer.body) == (200, json.loads(SCHEMA_FILE.read_text()))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("seed", "5", "integer"),
        ("seed", 5.5, "integer"),
        ("seed", -1, "minimum"),
        ("seed", 2147483648, "maximum"),
        ("seed", None, "integer"),
        ("randomize_seed", 1, "boolean"),
        ("generate_video", "true", "boolean"),
        ("tex_slat_cfg", 15.5, "maximum"),
        ("tex_slat_cfg", [1.0], "number"),
        ("shape_slat_steps", 0, "minimum"),
        ("decimation_target", 499, "minimum"),
        ("decimation_target", 2000001, "maximum"),
        ("texture_size", 255, "minimum"),
        ("texture_size", 8193, "maximum"),
        ("pipeline_type", "2048", "one of"),
        ("pipeline_type", 512, "string"),
        ("quality", "best", "one of"),
        ("model", "dalle", "one of"),
        ("format", "fbx", "one of"),
        ("video_size", 1025, "maximum"),
        ("image", 5, "string"),
        ("image", None, "string"),
    ],
)
def test_a_value_outside_the_schema_is_422(server, name, value, complaint):
    answer = server.request(
        "POST", "/predictions", {"input": {"image": PICTURE, **CUT_OUT_ONLY, name: value}}
    )
    assert answer.code == 422
    details = answer.body["detail"]
    assert all(detail["loc"] == ["body", "input", name] for detail in details)
    assert any(complaint in detail["msg"] for detail in details)


def test_a_missing_picture_is_422(server):
    answer = server.request("POST", "/predictions", {"input": {"seed": 1}})
    assert answer.code == 422
    (detail,) = answer.body["detail"]
    assert (detail["loc"], detail["msg"]) == (["body", "input", "image"], "Field required")


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        str(ROOT / "predict.py"),
        "predict.py",
        "file:///etc/passwd",
        "ftp://127.0.0.1/picture.png",
        "",
        "\x00",
    ],
)
def test_a_place_on_the_servers_disk_is_refused(server, place):
    answer = server.predict(place, **CUT_OUT_ONLY)
    assert answer.error.startswith(FAILED)
    assert answer.error.endswith("image must be an http(s) URL or a data URL")
    assert scratch_files(server) == []


def _png(size: tuple[int, int], color: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "url",
    [
        data_url(b"no picture", "text/plain"),
        data_url(b""),
        "data:image/png;base64,%%%%",
        data_url(mushroom_png()[:300]),
        data_url(_png((16, 16), (200, 0, 0, 255))),
        data_url(_png((400, 40), (200, 0, 0, 255))),
        data_url(_png((8000, 8000), (200, 0, 0, 255))),
        data_url(bytes(26 * 2**20)),
        data_url(_png((64, 64), (0, 0, 0, 0))),
    ],
    ids=["text", "empty", "base64", "truncated", "small", "long", "pixels", "bytes", "transparent"],
)
def test_a_bad_picture_fails_with_one_sentence_and_leaves_no_file(server, url):
    error = server.predict(url, **SMALL).error
    assert error.startswith((FAILED + "PictureError: ", FAILED + "ForegroundError: "))
    sentence = error.removeprefix(FAILED)
    assert 20 < len(sentence) < 300
    for unwanted in ("\n", "Traceback", ".py", str(server.tmp), "/tmp", "/work", "onelook."):
        assert unwanted not in sentence
    assert scratch_files(server) == []


def test_nothing_asked_for_fails_with_the_remedy(server):
    error = server.predict(PICTURE, generate_model=False, generate_video=False).error
    assert "turn on generate_model, generate_video, return_no_background, return_preview" in error


def test_the_next_prediction_works_after_a_failed_one(server):
    assert server.predict("/etc/passwd").body["status"] == "failed"
    assert server.predict(PICTURE, **CUT_OUT_ONLY).body["status"] == "succeeded"


def test_a_misspelt_option_shows_in_the_echoed_options(server):
    """Cog drops names it does not know; only what was used tells."""
    body = server.predict(PICTURE, **CUT_OUT_ONLY, tex_slat_step=3, Seed=1).body
    assert body["metrics"]["options"]["tex_slat_steps"] == 12
    assert body["metrics"]["seed"] == 42
    assert "tex_slat_step" not in body["metrics"]["options"]


def test_numbers_are_taken_as_json_writes_them(server):
    metrics = server.predict(PICTURE, **CUT_OUT_ONLY, seed=5.0, tex_slat_cfg=7).body["metrics"]
    assert metrics["seed"] == 5
    assert metrics["options"]["tex_slat_cfg"] == 7


def test_a_drawn_seed_is_returned(server):
    metrics = server.predict(PICTURE, **CUT_OUT_ONLY, randomize_seed=True).body["metrics"]
    assert metrics["seed"] != 42
    assert metrics["options"]["seed"] == metrics["seed"]


def test_a_picture_by_url_is_fetched(server, picture_url):
    body = server.predict(picture_url, **CUT_OUT_ONLY).body
    assert body["status"] == "succeeded", body
    inline = server.predict(PICTURE, **CUT_OUT_ONLY).body
    assert body["output"] == inline["output"]


@pytest.fixture
def picture_url():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = mushroom_png()
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/mushroom.png"
        web.shutdown()


def test_busy_is_409_and_cancelling_frees_the_place(server):
    assert server.start("long", PICTURE, **LARGE).code == 202
    server.wait_until("BUSY")
    busy = server.request("POST", "/predictions", {"input": {"image": PICTURE, **CUT_OUT_ONLY}})
    assert busy.code == 409
    time.sleep(0.5)  # until it works: earlier, Cog's own start-up swallows the cancellation
    assert server.cancel("long").code == 200
    server.wait_until("READY", 5)
    assert '"Prediction cancelled","prediction_id":"long"' in server.log
    assert scratch_files(server) == []
    assert server.cancel("long").code == 404
    assert server.predict(PICTURE, **CUT_OUT_ONLY).body["status"] == "succeeded"


def test_a_client_that_goes_away_frees_the_place(server):
    server.wait_until("READY")
    body = json.dumps({"id": "left", "input": {"image": PICTURE, **LARGE}})
    client = http.client.HTTPConnection("127.0.0.1", server.port)
    client.request("POST", "/predictions", body, {"Content-Type": "application/json"})
    server.wait_until("BUSY")
    time.sleep(0.5)
    client.close()
    server.wait_until("READY", 5)
    assert '"Prediction cancelled","prediction_id":"left"' in server.log
    assert scratch_files(server) == []


def test_scratch_holds_the_last_answer_at_most_after_twenty_predictions(server):
    bad = data_url(b"no picture")
    for number in range(20):
        picture, options = [
            (PICTURE, CUT_OUT_ONLY),
            (bad, SMALL),
            ("/etc/passwd", SMALL),
            (PICTURE, CUT_OUT_ONLY | {"quality": "ultra"}),
        ][number % 4]
        if number == 10:
            picture, options = PICTURE, SMALL | {"generate_video": False}
        server.predict(picture, **options)
        made = scratch_files(server)
        assert made in ([], ["output_no_background.png"], ["output.glb"])
    assert made == ["output_no_background.png"]


def test_scratch_goes_with_the_server_and_a_killed_ones_with_the_next(tmp_path):
    with CogServer(tmp_path) as killed:
        assert killed.predict(PICTURE, **CUT_OUT_ONLY).body["status"] == "succeeded"
        killed.kill()
    (orphan,) = killed.tmp.iterdir()
    assert [path.name for path in orphan.iterdir()] == ["output_no_background.png"]
    with CogServer(tmp_path) as following:
        (scratch,) = following.tmp.iterdir()
        assert scratch != orphan
        assert following.predict(PICTURE, **CUT_OUT_ONLY).body["status"] == "succeeded"
        assert len(list(scratch.iterdir())) == 1
    assert list(following.tmp.iterdir()) == []
