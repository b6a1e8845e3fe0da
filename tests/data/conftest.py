"""A small registered set, and a server on this machine that can fail in every way a real one does."""

import hashlib
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusionlab.data import fetch, registry

HEADER = "dataset,split,role,pair,path,bytes,sha256,repository,commit,source"


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """A mirror and a registry of two small pairs of 'm3fd'; the cache is empty."""
    lines = [HEADER]
    for pair, split in (("1", "one"), ("2", "two")):
        for role in ("ir", "vis"):
            path = tmp_path / "mirror" / "m3fd" / role / f"{pair}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), 40 * int(pair) + len(role), np.uint8)).save(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(
                f"m3fd,{split},{role},{pair},m3fd/{role}/{pair}.png,{path.stat().st_size},{sha256},"
                f"some/one,{'c' * 40},a b/{role}#{pair}.png"
            )
    (tmp_path / "registry.csv").write_text("\n".join(lines) + "\n")
    files = registry.load_registry(tmp_path / "registry.csv")
    monkeypatch.setattr(registry, "registry", lambda: files)
    monkeypatch.setenv("FUSIONLAB_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "mirror"


class Handler(BaseHTTPRequestHandler):
    """Serves the server's folder; a request uses up the first fault of its path, the last one stays."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        server = self.server
        server.asked[f"{self.command} {self.path}"] += 1
        queue = server.faults[self.path]
        fault = queue.pop(0) if len(queue) > 1 else queue[0] if queue else ""
        path = server.folder / self.path.removeprefix("/moved").lstrip("/")
        content = path.read_bytes() if path.is_file() else b""
        if fault == "silent":
            server.released.wait(10)
        elif fault in ("404", "500"):
            self.send_error(int(fault))
        elif fault in ("moved", "circle"):
            self.send_response(302)
            self.send_header("Location", self.path if fault == "circle" else f"/moved{self.path}")
            self.end_headers()
        else:
            self.send_response(200)
            if fault != "short":
                self.send_header("Content-Length", str(len(content) or 99))
            self.end_headers()
            if body:
                changed = bytes([content[0] ^ 1]) + content[1:] if fault == "corrupt" else content
                half = fault in ("truncated", "short", "stalls")
                self.wfile.write(changed[: len(changed) // 2 if half else None])
                if fault == "stalls":
                    self.wfile.flush()
                    server.released.wait(10)


@pytest.fixture
def server(mirror, monkeypatch):
    """The mirror as an address: `faults[path]` are its next answers, `asked` counts its requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.folder, server.faults, server.asked = mirror, defaultdict(list), Counter()
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
