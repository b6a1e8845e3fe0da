"""A small registered set, and a server on this machine that can fail in every way a real one does."""

import gzip
import hashlib
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fusionlab import cli, paths
from fusionlab.data import fetch, registry

ROOT = Path(__file__).parents[2]
SICK = "/m3fd/vis/1.png"  # the file that servers fail at
HEADER = "dataset,split,role,pair,path,bytes,sha256,repository,commit,source"


def data(*arguments: str, stdin: str | None = None) -> tuple[int, str, list[str]]:
    """Exit code, stdout and the error lines of `fusionlab data ARGUMENTS`."""
    done = CliRunner().invoke(cli.app, ["data", *arguments], input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.exit_code, done.stdout, errors


def held() -> set[str]:
    """What the cache holds, leftovers included; what has a registered name must be whole."""
    files = {file.path: file for file in registry.registry()}
    names = {p.relative_to(paths.cache()).as_posix() for p in paths.cache().rglob("*") if p.is_file()}
    for name in names & set(files):
        assert hashlib.sha256((paths.cache() / name).read_bytes()).hexdigest() == files[name].sha256
    return names


def register(folder: Path, monkeypatch: pytest.MonkeyPatch, splits: dict[str, str], width: int = 6) -> Path:
    """A mirror and a registry of small pairs of 'm3fd', pair -> split; the cache is empty."""
    lines = [HEADER]
    for number, (pair, split) in enumerate(splits.items(), start=1):
        for role in ("ir", "vis"):
            path = folder / "mirror" / "m3fd" / role / f"{pair}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, width), (40 * number + len(role)) % 256, np.uint8)).save(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(
                f"m3fd,{split},{role},{pair},m3fd/{role}/{pair}.png,{path.stat().st_size},{sha256},"
                f"some/one,{'c' * 40},a b/{role}#{pair}.png"
            )
    (folder / "registry.csv").write_text("\n".join(lines) + "\n")
    files = registry.load_registry(folder / "registry.csv")
    monkeypatch.setattr(registry, "registry", lambda: files)
    monkeypatch.setenv("FUSIONLAB_MIRROR", str(folder / "mirror"))
    monkeypatch.setenv("FUSIONLAB_CACHE", str(folder / "cache"))
    return folder / "mirror"


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """A mirror and a registry of two small pairs of 'm3fd'; the cache is empty."""
    return register(tmp_path, monkeypatch, {"1": "one", "2": "two"})


# Where a redirect may lead, {0} being the path that was asked for.
REDIRECTS = {
    "moved": "/moved{0}",
    "circle": "{0}",
    "growing circle": "{0}x",
    "to a file": "file:///etc/passwd",
    "to ftp": "ftp://127.0.0.1/x",
    "to nowhere": "",
    "to half an address": "http://[",
    "to another name": "http://no.such.host.invalid/{0}",
    "to a long name": "http://{0}" + "a" * 300 + "/",
}
# Answers of a wrong length: what is said, what is sent.
LENGTHS = {
    "says less": (lambda b: len(b) - 10, lambda b: b),
    "says -5": (lambda b: -5, lambda b: b + b"x" * 9),
    "says nonsense": (lambda b: "abc", lambda b: b[:-2]),
    "too long": (lambda b: len(b) + 5, lambda b: b + b"extra"),
    "one byte less": (lambda b: len(b) - 1, lambda b: b[:-1]),
    "empty": (lambda b: 0, lambda b: b""),
    "login page": (lambda b: 17, lambda b: b"<html>log in</html>"[:17]),
    "same length": (len, lambda b: b"x" * len(b)),
}


@cache
def bomb() -> bytes:
    """64 MiB in 64 kB."""
    return gzip.compress(bytes(2**26))


STEP = 0.05  # seconds between two bytes of a server that drips


class Handler(BaseHTTPRequestHandler):
    """Serves the server's folder; a request uses up the first fault of its path, the last one stays."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.reply(body=False)

    def do_GET(self) -> None:
        self.reply(body=True)

    def reply(self, body: bool) -> None:
        try:
            self.answer(body)
        except (BrokenPipeError, ConnectionResetError):  # whoever asked has had enough
            self.close_connection = True

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.server.sent += len(data)

    def head(self, status: int = 200, **fields: object) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer(self, body: bool) -> None:
        server = self.server
        server.asked[f"{self.command} {self.path}"] += 1
        server.authorised[self.headers.get("Authorization", "")] += 1
        queue = server.faults[self.path.rstrip("x")]
        fault = queue.pop(0) if len(queue) > 1 else queue[0] if queue else ""
        path = server.folder / self.path.removeprefix("/moved").lstrip("/")
        content = path.read_bytes() if path.is_file() else b""
        if fault == "silent":
            server.released.wait(10)
        elif fault.isdecimal():
            self.send_error(int(fault))
        elif fault in REDIRECTS:
            self.head(302, Location=REDIRECTS[fault].format(self.path), Content_Length=0)
        elif fault in LENGTHS:
            said, sent = LENGTHS[fault]
            self.head(Content_Length=said(content))
            self.send(sent(content) if body else b"")
        elif hasattr(self, name := "fault_" + fault.replace(" ", "_")):
            getattr(self, name)(content)
        else:
            if fault == "slow":
                time.sleep(STEP)
            self.head(**({} if fault == "short" else {"Content_Length": len(content) or 99}))
            if body:
                changed = bytes([content[0] ^ 1]) + content[1:] if fault == "corrupt" else content
                half = fault in ("truncated", "short", "stalls")
                self.send(changed[: len(changed) // 2 if half else None])
                if fault == "stalls":
                    server.released.wait(10)

    def forever(self, data: bytes, pause: float = 0.002) -> None:
        while not self.server.released.is_set():
            self.send(data)
            time.sleep(pause)

    def fault_endless(self, _: bytes) -> None:
        self.head()
        self.forever(b"\0" * 2**16)

    def fault_endless_redirect(self, _: bytes) -> None:
        self.head(302, Location=f"/moved{self.path}")
        self.forever(b"\0" * 2**16)

    def fault_endless_error(self, _: bytes) -> None:
        self.head(500)
        self.forever(b"\0" * 2**16)

    def fault_endless_head(self, _: bytes) -> None:
        self.send(b"HTTP/1.1 200 OK\r\n")
        self.forever(b"X-A: " + b"a" * 60_000 + b"\r\n")

    def fault_endless_line(self, _: bytes) -> None:
        self.send(b"HTTP/1.1 200 ")
        self.forever(b"a" * 2**16)

    def fault_endless_continue(self, _: bytes) -> None:
        self.forever(b"HTTP/1.1 100 Continue\r\n\r\n")

    def fault_endless_chunk_size(self, _: bytes) -> None:
        self.protocol_version = "HTTP/1.1"
        self.head(Transfer_Encoding="chunked")
        self.forever(b"0" * 2**16)

    def fault_endless_trailer(self, content: bytes) -> None:
        self.protocol_version = "HTTP/1.1"
        self.head(Transfer_Encoding="chunked")
        self.send(b"%x\r\n%s\r\n0\r\n" % (len(content) - 1, content[:-1]))
        self.forever(b"X-A: b\r\n")

    def fault_bad_chunk(self, _: bytes) -> None:
        self.protocol_version = "HTTP/1.1"
        self.head(Transfer_Encoding="chunked")
        self.send(b"zz\r\nhello\r\n")

    def fault_gzip_bomb(self, _: bytes) -> None:
        packed = bomb()
        self.head(Content_Encoding="gzip", Content_Length=len(packed))
        self.send(packed)

    def fault_gzip_lie(self, content: bytes) -> None:
        self.head(Content_Encoding="gzip", Content_Length=len(content) + 1)
        self.send(content + b"x")

    def fault_drip(self, content: bytes) -> None:
        self.head(Content_Length=len(content))
        for byte in content:
            self.send(bytes([byte]))
            self.server.released.wait(STEP)

    def fault_drip_head(self, _: bytes) -> None:
        self.send(b"HTTP/1.1 200 OK\r\n")
        self.forever(b"X-A: b\r\n", STEP)

    def fault_drip_line(self, _: bytes) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nX: ")
        self.forever(b"a", STEP)

    def fault_reset(self, _: bytes) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def fault_hang_up(self, _: bytes) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def fault_garbage(self, _: bytes) -> None:
        self.send(b"\x00\xff garbage\r\n\r\n")

    def fault_long_reason(self, _: bytes) -> None:
        self.send(b"HTTP/1.1 503 " + b"\x1b[31mbusy " * 5000 + b"\r\n\r\n")


@pytest.fixture
def server(mirror, monkeypatch):
    """The mirror as an address: `faults[path]` are its next answers, `asked` counts its requests."""
    yield from serve(mirror, monkeypatch)


def serve(folder: Path, monkeypatch: pytest.MonkeyPatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.folder, server.faults, server.asked = folder, defaultdict(list), Counter()
    server.sent, server.authorised = 0, Counter()
    server.released = threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("FUSIONLAB_MIRROR", f"{server.address}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "TIMEOUT", 0.4)
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()
