"""A server of one app's files, nothing else: for this machine, or with a certificate for its network."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mobilenets.app.making import POLICY, slug, title_of

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".png": "image/png",
    ".wasm": "application/wasm",
}
BYTES = "application/octet-stream"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
INDEX = "index.html"
LOCAL = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
LIMIT_S = 30


class Handler(BaseHTTPRequestHandler):
    """Gives a file of an `AppServer`, and refuses all else."""

    server: AppServer
    server_version, sys_version = "mobilenets", ""
    protocol_version = "HTTP/1.1"
    timeout = LIMIT_S

    def do_GET(self) -> None:
        """A file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """What is to be known of a file."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        try:
            path = unquote(urlsplit(self.path).path)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if path in ("/", self.server.place.rstrip("/")):
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.server.place)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        name = path.removeprefix(self.server.place)
        data = None if name == path else self.server.content.get(name or INDEX)
        if data is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(Path(name or INDEX).suffix, BYTES))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def end_headers(self) -> None:
        """The same for every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class AppServer(ThreadingHTTPServer):
    """Serves `content`, files by name, that were read before: no path can leave it.

    They lie below `place`, a path of the app's own: a page that works offline answers for all that lies below
    its own address from then on, and what is served by this port another day is not its business.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], content: dict[str, bytes], place: str) -> None:
        self.content, self.place = content, place
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of browsers that go away, or that do not trust a certificate yet."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def server(
    folder: Path, host: str = LOCAL, port: int = 0, certificate: Path | None = None
) -> Iterator[AppServer]:
    """A server of the files that lie in the folder now, bound to `host`; run it by `serve_forever`.

    Raises ValueError where they are no whole app.
    """
    content = {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
    made = AppServer((host, port), content, f"/{slug(title_of(folder))}/")
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
    try:
        yield made
    finally:
        made.server_close()


def ready(port: int, *, lan: bool) -> None:
    """Raises ValueError where an app could not be served: before it is made, which takes its time."""
    if lan:
        for name in ("cryptography", "segno"):
            import_module(name)
    with _bound(port), AppServer((EVERYWHERE if lan else LOCAL, port), {}, "/"):
        pass


@contextmanager
def _bound(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"--port {port}: another program has it; give another, or 0 for any") from error
        raise


def serving(folder: Path, port: int, say: Callable[[str], None], *, lan: bool) -> None:
    """Serve an app until Ctrl+C; where it is, for a phone on the same network too with `lan`."""
    host = _own_address() if lan else LOCAL
    certificate = None
    if lan:
        from mobilenets.app.certificate import of_server

        certificate = of_server(host)
    with _bound(port), server(folder, EVERYWHERE if lan else host, port, certificate) as running:
        scheme, name = ("https", host) if lan else ("http", "localhost")
        address = f"{scheme}://{name}:{running.server_port}{running.place}"
        say(address)
        if lan and host == LOCAL:
            say("This machine is on no network now: no phone will reach it.")
        if certificate is not None:
            _shown(address, certificate, say)
        say("Ctrl+C ends it")
        with suppress(KeyboardInterrupt):
            running.serve_forever()


def _own_address() -> str:
    """This machine's address on its network; asking for the way to a far one sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, suppress(OSError):
        asked.connect(("192.0.2.1", 9))  # an address of nobody (RFC 5737)
        return str(asked.getsockname()[0])
    return LOCAL


def _shown(address: str, certificate: Path, say: Callable[[str], None]) -> None:
    """The address as a picture for a phone, and what its browser will ask about."""
    import segno

    from mobilenets.app.certificate import fingerprint

    text = StringIO()
    segno.make(address, error="m").terminal(text, compact=True)
    light, plain = ("\x1b[97;40m", "\x1b[0m") if sys.stdout.isatty() else ("", "")  # else inverted on white
    say("\n".join(f"{light}{line}{plain}" for line in text.getvalue().splitlines()))
    say("The browser warns, because nobody vouches for a certificate that was made here. Its SHA-256 is")
    say(fingerprint(certificate))
    say("Offline use wants a server with a certificate that browsers know.")
