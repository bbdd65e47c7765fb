"""What may be sent, and how the rest is refused: in one sentence, with the right code, at once."""

from __future__ import annotations

import http.client
import io
import json
import time

import pytest
from helpers.pictures import mushroom_png
from helpers.rest_server import CREATE, CUT_OUT_ONLY, SMALL, file_part, form
from PIL import Image

from onelook.engine import OUTPUTS
from onelook.options import option_fields

PICTURE = mushroom_png()


def test_the_openapi_form_has_every_option_as_it_is(service):
    schema = service.request("GET", "/openapi.json").body
    content = schema["paths"][CREATE]["post"]["requestBody"]["content"]
    fields = content["multipart/form-data"]["schema"]
    assert fields["required"] == ["image"]
    assert list(fields["properties"])[:2] == ["image", "images"]
    options = {name: fields["properties"][name] for name in list(fields["properties"])[2:]}
    assert list(options) == [option.name for option in option_fields()]
    for option in option_fields():
        shown, limits = options[option.name], option.metadata
        assert shown["default"] == option.default
        assert shown["description"] == limits["help"]
        assert shown.get("enum", []) == list(limits["choices"])
        assert shown.get("minimum") == limits["minimum"]
        assert shown.get("maximum") == limits["maximum"]


def test_every_field_of_every_answer_is_described(service):
    schema = service.request("GET", "/openapi.json").body
    for name, model in schema["components"]["schemas"].items():
        for field, shown in model.get("properties", {}).items():
            assert shown.get("description"), f"{name}.{field}"
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (path, method)
            for parameter in operation.get("parameters", []):
                assert parameter["description"], (path, parameter["name"])
    properties = schema["components"]["schemas"]["Completed"]["properties"]
    assert {f"{output.removesuffix('_file')}_url" for output in OUTPUTS} < set(properties)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": "-1"}, "seed must be a whole number from 0 to 2147483647, got '-1'"),
        ({"seed": ""}, "seed must be a whole number"),
        ({"texture_size": "1e99"}, "texture_size must be"),
        (
            {"texture_sise": "512"},
            "there is no option 'texture_sise'; did you mean 'texture_size'?",
        ),
        ({"model": "dalle"}, "model must be one of"),
        ({"model": "trellis"}, "model trellis needs"),
        ({"generate_video": "maybe"}, "generate_video must be true or false, got 'maybe'"),
        ({"generate_video": "1"}, "generate_video must be true or false, got '1'"),
        ({"video_size": "301"}, "video_size must be an even number"),
        ({"generate_model": "false", "generate_video": "false"}, "nothing to do"),
        ({"image_url": "https://example.com/a.png"}, "image_url is not allowed at this service"),
    ],
)
def test_a_wrong_option_is_422_with_the_rule(service, options, sentence):
    answer = service.create(PICTURE, **options)
    assert answer.code == 422
    assert answer.body["detail"].startswith(sentence)
    assert len(answer.body["id"]) in (16, 32)


def test_wrong_forms_are_refused(service):
    def send(body: bytes, kind: str) -> tuple[int, str]:
        answer = service.request("POST", CREATE, body, {"Content-Type": kind})
        return answer.code, answer.body["detail"]

    body, kind = form(None, seed=1)
    assert send(body, kind) == (422, "The picture is missing; send it as the file image.")
    body, kind = form(b"", images="")
    assert send(body, kind) == (422, "The picture is missing; send it as the file image.")
    body, kind = form(None, image="mushroom.png")
    assert send(body, kind) == (422, "image must be a file, got the text 'mushroom.png'.")
    body, kind = form(PICTURE)
    assert send(body[:-200], kind)[0] == 422  # cut short
    assert send(body, "multipart/form-data") == (
        422,
        "The request is no valid form, or has too many or too long parts.",
    )
    assert send(body, "application/json")[0] == 415
    assert send(b"", kind)[0] == 422
    mark = kind.partition("=")[2]
    end = f"--{mark}--\r\n".encode()
    assert send(body[: -len(end)] + file_part(mark, "image", PICTURE) + end, kind) == (
        422, "'image' came twice.",
    )  # fmt: skip
    assert send(file_part(mark, "seed", b"5") + body, kind) == (
        422, "'seed' must be a text field, and a file came.",
    )  # fmt: skip
    assert send(file_part(mark, "images", b"no picture") + body, kind) == (
        422,
        "picture 1 of images: The file is not a picture of a known format; expected PNG, JPEG,"
        " WebP, BMP, GIF, TIFF or AVIF.",
    )
    many = b"".join(file_part(mark, "images", PICTURE) for _ in range(9))
    assert send(many + body, kind)[0] == 422
    long = b"".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="f{n}"\r\n\r\nx\r\n'.encode()
        for n in range(300)
    )
    assert send(long + body, kind)[0] == 422


def test_further_pictures_are_taken(service):
    body, kind = form(PICTURE, **SMALL)
    mark = kind.partition("=")[2]
    body = file_part(mark, "images", PICTURE) + body
    answer = service.request("POST", CREATE, body, {"Content-Type": kind})
    assert answer.code == 200
    assert "relief takes one picture: images is ignored" in answer.body["notes"]


def test_a_bad_picture_is_refused_before_it_waits_and_leaves_nothing(service):
    before = service.files()
    answer = service.create(b"%PDF-1.7 something", **SMALL)
    assert answer.code == 422
    assert answer.body["detail"].startswith("The file is a PDF document; expected PNG")
    assert set(service.files()) <= set(before)
    assert service.request("GET", f"/api/v1/jobs/{answer.body['id']}").code == 404  # no job


def test_a_picture_without_subject_is_422_with_the_jobs_id(service):
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(buffer, "PNG")
    answer = service.create(buffer.getvalue(), **SMALL)
    assert answer.code == 422
    assert service.job(answer.body["id"])["message"] == answer.body["detail"]


def test_too_large_an_upload_is_413_however_it_comes(strict_service):
    key = {"X-API-Key": "first-key"}
    large = bytes(300_000)
    declared = strict_service.create(large, key)
    assert declared.code == 413
    assert declared.body["detail"] == "The request has more than 0.2 MB; send less."

    body, kind = form(large)

    def chunks():
        for start in range(0, len(body), 20_000):
            yield body[start : start + 20_000]

    connection = http.client.HTTPConnection("127.0.0.1", strict_service.port, timeout=20)
    headers = {"Content-Type": kind, **key}
    connection.request("POST", CREATE, chunks(), headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    assert strict_service.create(PICTURE, key, **CUT_OUT_ONLY).code == 200


def test_curl_hears_of_413_before_it_sends(strict_service):
    """With `Expect: 100-continue` not a byte of the picture goes over the line."""
    connection = http.client.HTTPConnection("127.0.0.1", strict_service.port, timeout=20)
    connection.putrequest("POST", CREATE)
    for name, value in {
        "Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(10**9),
        "Expect": "100-continue", "X-API-Key": "first-key",
    }.items():  # fmt: skip
        connection.putheader(name, value)
    connection.endheaders()
    begin = time.monotonic()
    assert connection.getresponse().status == 413
    assert time.monotonic() - begin < 2
    connection.close()


def test_unknown_routes_and_methods_answer_in_the_same_form(service):
    for method, path, code in (
        ("GET", "/nothing", 404), ("PUT", CREATE, 405), ("GET", CREATE, 405),
        ("POST", "/health", 405), ("GET", "/api/v1/jobs/none", 404),
        ("POST", "/api/v1/jobs/none/cancel", 404), ("GET", "/api/v1/jobs/none/events", 404),
    ):  # fmt: skip
        answer = service.request(method, path)
        assert answer.code == code
        assert answer.body.keys() == {"detail", "id"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert json.loads(answer.content)["id"] == answer.headers["x-request-id"]
