"""Pictures from the web: only from its public part, whatever names, redirects and servers say."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import threading
import time
from dataclasses import replace

import pytest
from helpers.pictures import mushroom_png
from helpers.rest_server import ASYNC, CREATE, CUT_OUT_ONLY, form

from onelook.errors import PictureError
from onelook.service.fetch_url import Limits, fetch_picture, is_public

PICTURE = mushroom_png()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2001:db8::1", "64:ff9b:1::1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are_public(address):
    assert is_public(address)


class Web(http.server.BaseHTTPRequestHandler):
    """A web server with every bad habit."""

    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        name, _, number = self.path.strip("/").partition("/")
        if name == "redirect":
            self.send_response(302)
            self.send_header("Location", self.server.places[int(number)])
            self.end_headers()
            return
        self.send_response({"missing": 404}.get(name, 200))
        content = bytes(5000) if name == "endless" else PICTURE
        if name not in ("endless", "slow"):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for _ in range(200 if name in ("endless", "slow") else 1):
            if name == "slow":
                content = b"x"
                time.sleep(0.1)
            try:
                self.wfile.write(content)
            except OSError:
                return

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
         "-out", certificate, "-subj", "/CN=pictures.example",
         "-addext", "subjectAltName=DNS:pictures.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.asked, server.places = [], []
    server.limits = Limits(
        most_bytes=100_000,
        seconds=2,
        port=server.server_port,
        allowed=lambda address: address == "127.0.0.1",  # stands for the public part
        resolve=lambda host: {"pictures.example": ["127.0.0.1"]}.get(host, ["10.0.0.1"]),
        context=ssl.create_default_context(cafile=str(certificate)),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_a_public_picture_is_fetched_by_name_and_certificate(web, tmp_path):
    fetch_picture("https://pictures.example/mushroom.png?size=1", tmp_path / "p", web.limits)
    assert (tmp_path / "p").read_bytes() == PICTURE
    assert web.asked[-1] == (f"pictures.example:{web.server_port}", "/mushroom.png?size=1")


def test_redirects_are_followed_a_few_times_and_checked_each_time(web, tmp_path):
    web.places[:] = ["/redirect/1", "https://pictures.example/mushroom.png"]
    fetch_picture("https://pictures.example/redirect/0", tmp_path / "p", web.limits)
    assert (tmp_path / "p").read_bytes() == PICTURE
    for place in (
        "https://intranet.example/mushroom.png", "http://pictures.example/mushroom.png",
        "https://10.0.0.1/", "file:///etc/passwd", "https://user@pictures.example/",
        "https://pictures.example:22/", "/redirect/0",
    ):  # fmt: skip
        web.places[:] = [place]
        with pytest.raises(PictureError):
            fetch_picture("https://pictures.example/redirect/0", tmp_path / "q", web.limits)


def test_one_private_address_among_those_of_a_name_is_enough(web, tmp_path):
    limits = replace(web.limits, resolve=lambda host: ["127.0.0.1", "10.0.0.1"])
    with pytest.raises(PictureError, match="could not be fetched"):
        fetch_picture("https://pictures.example/", tmp_path / "p", limits)


def test_a_name_is_resolved_once_so_a_second_answer_changes_nothing(web, tmp_path):
    answers = iter([["127.0.0.1"]])
    limits = replace(web.limits, resolve=lambda host: next(answers))
    fetch_picture("https://pictures.example/mushroom.png", tmp_path / "p", limits)
    assert (tmp_path / "p").read_bytes() == PICTURE


@pytest.mark.parametrize("path", ["missing", "endless", "slow"])
def test_missing_endless_and_slow_pictures_are_given_up(web, tmp_path, path):
    begin = time.monotonic()
    with pytest.raises(PictureError):
        fetch_picture(f"https://pictures.example/{path}", tmp_path / "p", web.limits)
    assert time.monotonic() - begin < 4


def test_another_names_certificate_is_refused(web, tmp_path):
    limits = replace(web.limits, resolve=lambda host: ["127.0.0.1"])
    with pytest.raises(PictureError, match="could not be fetched"):
        fetch_picture("https://other.example/mushroom.png", tmp_path / "p", limits)


def test_the_service_refuses_addresses_of_its_own_network(strict_service):
    """The service as an operator starts it who allows addresses."""
    addresses = [
        "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://169.254.169.254/",
        "https://0x7f000001/", "https://2130706433/", "https://127.1/", "http://example.com/a.png",
        "file:///etc/passwd", "ftp://example.com/", "https://", "gopher://x/", "https://a b/",
        "https://user:word@example.com/", "https://example.com:8443/", "//example.com/a.png",
        "https://example.com/\r\nX: 1", "https://[::ffff:10.0.0.1]/", "x" * 3000,
    ]  # fmt: skip
    key = {"X-API-Key": "third-key"}
    schema = strict_service.request("GET", "/openapi.json").body["paths"][CREATE]["post"]
    fields = schema["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "image_url" in fields["properties"] and "required" not in fields
    for address in addresses:
        body, kind = form(None, image_url=address, **CUT_OUT_ONLY)
        answer = strict_service.request(
            "POST", CREATE, body, {"Content-Type": kind, **ASYNC, **key}
        )
        assert answer.code == 422, address
        assert "image_url" in answer.body["detail"], answer.body
    body, kind = form(PICTURE, image_url="https://example.com/", **CUT_OUT_ONLY)
    assert strict_service.request("POST", CREATE, body, {"Content-Type": kind, **key}).code == 422
    assert strict_service.create(PICTURE, key, **CUT_OUT_ONLY).code == 200
