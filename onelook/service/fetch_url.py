"""Fetch a picture from the web without becoming somebody's way into the private network.

https only, port 443, public addresses only. A name is resolved once; every address it has must be
public, and the connection goes to one of those very addresses, so a second, different answer of a
name server changes nothing. Each redirect is checked from the beginning. Bytes and time are capped.
Proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from onelook.errors import PictureError
from onelook.foreground.decode import MAX_BYTES

_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_ADDRESS = 2048
_UNREACHABLE = "The picture at image_url could not be fetched; is the address right and public?"


def is_public(address: str) -> bool:
    """Whether this IP address is one of the public internet, also when wrapped into another."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64, RFC 6052
            inner = ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@dataclass(frozen=True)
class Limits:
    """What a fetch may do; the tests bring a resolver and an authority of their own."""

    most_bytes: int = MAX_BYTES
    seconds: float = 20.0
    redirects: int = 3
    port: int = 443
    allowed: Callable[[str], bool] = is_public
    resolve: Callable[[str], list[str]] = lambda host: _resolve(host)
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)


def fetch_picture(address: str, target: Path, limits: Limits | None = None) -> None:
    """Write what lies at `address` to `target`.

    Raises PictureError, with the same sentence for everything that could tell something about a
    network the client cannot see itself.
    """
    limits = limits or Limits()
    deadline = time.monotonic() + limits.seconds
    for _ in range(limits.redirects + 1):
        host, path = _checked(address, limits.port)
        try:
            further = _fetch_once(host, path, target, limits, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, PictureError):
                raise
            raise PictureError(_UNREACHABLE) from error
        if further is None:
            return
        address = urljoin(address, further)
    raise PictureError(_UNREACHABLE)


def _checked(address: str, port: int) -> tuple[str, str]:
    """-> host, and path with query."""
    try:
        parts = urlsplit(address)
        is_plain = parts.port in (None, port) and parts.username is None and parts.hostname
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        is_plain = False
    printable = address.isascii() and address.isprintable() and " " not in address
    if not is_plain or not printable or len(address) > _LONGEST_ADDRESS:
        raise PictureError("image_url must be a plain https address, without port or user name.")
    if parts.scheme != "https":
        raise PictureError("image_url must start with https://.")
    return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _resolve(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(entry[4][0] for entry in found))


class _Pinned(http.client.HTTPSConnection):
    """Connects to an address, while name and certificate are the host's."""

    def __init__(self, host: str, address: str, limits: Limits, seconds: float):
        super().__init__(host, limits.port, timeout=seconds, context=limits.context)
        self._address, self._pinned_context = address, limits.context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._pinned_context.wrap_socket(
            plain, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.raw = self.sock  # http.client forgets `sock` while an answer is still being read
        self.sock.do_handshake()


@contextmanager
def _cut_off(connection: _Pinned, deadline: float) -> Iterator[None]:
    """Shut the connection at the deadline: its own timeout begins anew with each byte."""

    def shut() -> None:
        with contextlib.suppress(OSError, AttributeError):
            connection.raw.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), shut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _fetch_once(host: str, path: str, target: Path, limits: Limits, deadline: float) -> str | None:
    """-> where it redirects to; None when the picture has been written."""
    addresses = limits.resolve(host)
    if not addresses or not all(map(limits.allowed, addresses)):
        raise PictureError(_UNREACHABLE)
    connection = _Pinned(host, addresses[0], limits, _left(deadline))
    with contextlib.closing(connection), _cut_off(connection, deadline):
        headers = {"User-Agent": "onelook", "Accept": "image/*", "Accept-Encoding": "identity"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status in _REDIRECTS and response.headers.get("Location"):
            return response.headers["Location"]
        if response.status != 200:
            raise PictureError(_UNREACHABLE)
        _save(response, target, limits.most_bytes)
        _left(deadline)
        return None


def _save(response: http.client.HTTPResponse, target: Path, most: int) -> None:
    size = 0
    with target.open("wb") as file:
        while chunk := response.read1(65536):
            size += len(chunk)
            if size > most:
                raise PictureError(
                    f"The picture at image_url has more than {most / 2**20:g} MB; send it smaller."
                )
            file.write(chunk)


def _left(deadline: float) -> float:
    """Seconds left; raises TimeoutError where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
