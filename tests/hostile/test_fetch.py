"""`fusionlab data get` against servers that mean harm, kills, and a second one beside it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from badserver import LENGTHS, REDIRECTS, ROOT, SICK, bomb, data, held, register, serve
from typer.testing import CliRunner

from fusionlab import cli, files, paths
from fusionlab.data import fetch, registry

ENDLESS = {
    "endless": "goes on after the registered",
    "endless error": "answers 500",
    "endless head": "could not be fetched",
    "endless line": "could not be fetched",
    "endless continue": "sent less than",
    "endless chunk size": "broke off|could not be fetched",
    "endless trailer": "sent less than|SHA-256 differs",
}
DRIPS = {"drip": "sent less than", "drip head": "sent less than", "drip line": "sent less than"}
PLAIN = {
    "truncated": "1.png broke off; try again later",
    "short": r"1.png is not the registered file .* \(SHA-256 differs, .*\); nothing of it is kept",
    "corrupt": r"1.png is not the registered file .* \(SHA-256 differs, .*\); nothing of it is kept",
    "stalls": "1.png gave no answer for 0.4 s; try again later",
    "silent": "1.png gave no answer for 0.4 s; try again later",
    "404": r"1.png answers 404 \(Not Found\); try again later, or set FUSIONLAB_MIRROR",
    "500": r"1.png answers 500 \(Internal Server Error\); try again later",
    "circle": r"1.png answers 302 \(Found\); try again later",
}
LIES = {
    **dict.fromkeys(LENGTHS, "is not the registered file|broke off"),
    "says less": "SHA-256 differs",
    "gzip lie": "goes on after the registered",
    "gzip bomb": "goes on after the registered",
    "bad chunk": "broke off|could not be fetched",
    "to a file": "could not be fetched .*No connection adapters",
    "to ftp": "could not be fetched .*No connection adapters",
    "growing circle": "answers 302",
    "to nowhere": "answers 302",
    "to half an address": "could not be fetched",
    "to another name": "could not be fetched",
    "to a long name": "could not be fetched",
    "reset": "could not be fetched",
    "hang up": "could not be fetched",
    "garbage": "could not be fetched",
    "long reason": "answers 503",
    **{status: f"answers {status}" for status in ("401", "403", "410", "429", "502", "503", "504")},
}


@pytest.mark.parametrize(("fault", "message"), (PLAIN | ENDLESS | DRIPS | LIES).items())
def test_a_hostile_answer_is_one_line_little_memory_and_a_short_time(
    server, monkeypatch, tally, fault, message
):
    tally["inputs"] += 1
    slow = "sent less than" in message  # what only patience ends; the others are not to be cut off by it
    monkeypatch.setattr(fetch, "PATIENCE", 1.0 if slow else 10.0)
    server.faults[SICK] = [fault]
    stale = paths.cache() / SICK.lstrip("/")
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"left over")
    bomb()  # packed beforehand, so that its memory is not counted
    begin = time.monotonic()
    tracemalloc.start()
    try:
        code, output, errors = data("get", "m3fd", "--yes")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begin < 20  # on a busy machine too
    assert (code, len(errors)) == (1, 1), output
    assert server.address + SICK in errors[0]
    assert re.search(message, errors[0]), errors
    assert len(errors[0]) < 1000
    assert errors[0].isprintable()
    assert peak < 20e6
    assert server.sent < 200e6  # what the buffers of sockets hold, and what is sent until they are closed
    assert SICK.lstrip("/") not in held()
    assert not [name for name in held() if name.endswith(".draft")]


@pytest.mark.parametrize("fault", ["drip head", "endless continue", "silent", "to a file", "reset"])
def test_asking_alone_ends_too_and_names_each(server, monkeypatch, tally, fault):
    tally["inputs"] += 1
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)
    monkeypatch.setattr(fetch, "RETRIES", 0)
    server.faults[SICK] = [fault]
    begin = time.monotonic()
    code, output, errors = data("verify", "m3fd", "--online")
    assert time.monotonic() - begin < 9  # a silent server is silent for 10
    assert (code, len(errors)) == (1, 1), output
    assert "m3fd: 3 of 4 addresses alive" in output


def test_a_rate_below_the_floor_ends_and_one_above_it_does_not(server, monkeypatch, tally):
    tally["inputs"] += 2
    size = next(file.bytes for file in registry.registry() if file.path == SICK.lstrip("/"))
    server.faults[SICK] = ["drip"]  # 20 bytes a second
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)
    monkeypatch.setattr(fetch, "SLOWEST", 15)
    assert data("get", "m3fd", "--yes")[0] == 0
    (paths.cache() / SICK.lstrip("/")).unlink()
    monkeypatch.setattr(fetch, "SLOWEST", 60)
    _, _, (error,) = data("get", "m3fd", "--yes")
    assert f"sent less than {size} bytes in {0.5 + size / 60:.3g} s" in error


def test_a_redirect_that_never_ends_is_not_read(server, tally):
    tally["inputs"] += 1
    server.faults[SICK] = ["endless redirect"]
    begin = time.monotonic()
    assert data("get", "m3fd", "--yes")[0] == 0
    assert time.monotonic() - begin < 20
    assert server.sent < 50e6


# --- what is left behind ---


def test_drafts_of_killed_runs_are_swept_at_once_but_nobody_elses(mirror, tmp_path, monkeypatch, tally):
    """Five kinds of other people's files, and one that a living process is writing."""
    tally["inputs"] += 7
    folder = paths.cache() / "m3fd" / "ir"
    folder.mkdir(parents=True)
    named = [f".1.png.{n:016x}.draft" for n in range(4)]
    for name in (named[0], "mine.png", ".1.png.draft"):
        (folder / name).write_text("x")
    (tmp_path / "precious").write_text("precious")
    (folder / named[1]).symlink_to(tmp_path / "precious")
    (folder / named[2]).mkdir()
    os.mkfifo(folder / named[3])
    (paths.cache() / named[0]).write_text("x")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITES, folder / "2.png"]
    writes = subprocess.Popen(command, stdin=-1, stdout=-1, env=environment)
    draft = folder / writes.stdout.readline().decode().strip()
    (folder / named[0]).write_text("x")  # anew, since the writer has swept
    with monkeypatch.context() as other:  # another user's
        other.setattr(os, "getuid", lambda: os.geteuid() + 1)
        assert data("get", "m3fd", "--split", "one", "--yes")[0] == 0
    assert (folder / named[0]).exists()
    monkeypatch.setattr(files, "_swept", set())
    (folder / "1.png").unlink()
    assert data("get", "m3fd", "--yes")[0] == 0
    left = {path.name for path in folder.iterdir()} - {"1.png", "2.png"}
    assert left == {"mine.png", ".1.png.draft", *named[1:], draft.name}
    assert (tmp_path / "precious").read_text() == "precious"
    assert (paths.cache() / named[0]).exists()
    writes.kill()
    writes.wait()
    tally["kills"] += 1
    monkeypatch.setattr(files, "_swept", set())
    (folder / "1.png").unlink()
    assert data("get", "m3fd", "--yes")[0] == 0
    assert not draft.exists()


WRITES = """
import sys; from pathlib import Path; from fusionlab.files import replacing
with replacing(sys.argv[1]) as draft:
    print(draft.name, flush=True)
    sys.stdin.read()
"""


def test_a_draft_is_new_and_its_name_cannot_be_guessed(mirror, monkeypatch, tally):
    tally["inputs"] += 1
    seen, replace = [], os.replace

    def note(draft, path):
        seen.append(Path(draft))
        assert not Path(draft).is_symlink()
        replace(draft, path)

    monkeypatch.setattr(os, "replace", note)
    flags, open_ = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, how, *rest, **more: flags.append(how) or open_(path, how, *rest, **more)
    )
    assert data("get", "m3fd", "--yes")[0] == 0
    assert len({path.name for path in seen}) == 4
    assert all(re.fullmatch(r"\..*\.[0-9a-f]{16}\.draft", path.name) for path in seen)
    assert sum(how & (os.O_EXCL | os.O_CREAT) == os.O_EXCL | os.O_CREAT for how in flags) >= 4


def forked(work) -> int:
    """The id of a copy of this process that does one thing, and ends with 0 where it raised nothing."""
    if child := os.fork():
        return child
    code = 1
    try:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for the life of this process
        work()
        code = 0
    finally:
        os._exit(code)


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A server of 40 files that takes 50 ms for each."""
    folder = register(tmp_path, monkeypatch, {f"{n:02d}": "one" for n in range(20)})
    for server in serve(folder, monkeypatch):
        monkeypatch.setattr(fetch, "TIMEOUT", 30.0)  # none is silent; a busy machine may seem so
        for file in registry.registry():
            server.faults[f"/{file.path}"] = ["slow"]
        yield server


def kill_and_go_on(tally, count: int, seed: int) -> None:
    """Kills `data get` at random times until all is there; what has a name is whole after each."""
    chance = random.Random(seed)
    for _ in range(count):
        tally["kills"] += 1
        child = forked(lambda: fetch.get(registry.choose("m3fd")))
        time.sleep(chance.uniform(0.0, 0.3))
        os.kill(child, chance.choice([signal.SIGKILL, signal.SIGTERM]))
        os.waitpid(child, 0)
        held()
    files._swept.clear()
    fetch.get(registry.choose("m3fd"))
    assert held() == {file.path for file in registry.registry()}


def test_a_kill_at_any_time_leaves_whole_files_only(many, tally):
    kill_and_go_on(tally, 10, seed=0)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_kills_at_any_time_leave_whole_files_only(many, tally, seed):
    kill_and_go_on(tally, 20, seed)


@pytest.mark.parametrize("times", [3, pytest.param(30, marks=pytest.mark.nightly)])
def test_two_beside_each_other_both_succeed(many, tally, times):
    """Each finds files that the other has just brought, and a wrong one that both want to replace."""
    for _ in range(times):
        tally["inputs"] += 1
        for file in registry.registry():
            (paths.cache() / file.path).unlink(missing_ok=True)
        (paths.cache() / "m3fd/ir").mkdir(parents=True, exist_ok=True)
        (paths.cache() / "m3fd/ir/00.png").write_text("wrong")
        children = [forked(lambda: fetch.get(registry.choose("m3fd"))) for _ in range(2)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert held() == {file.path for file in registry.registry()}


@pytest.mark.parametrize("fault", ["stalls", pytest.param("drip head", marks=pytest.mark.nightly)])
def test_an_interrupt_ends_it_at_once(server, tmp_path, monkeypatch, tally, fault):
    tally["kills"] += 1
    for file in registry.registry():
        server.faults[f"/{file.path}"] = [fault]
    code = (
        "from fusionlab.data import registry; "
        f"files = registry.load_registry({str(tmp_path / 'registry.csv')!r}); "
        "registry.registry = lambda: files; from fusionlab.cli import app; app()"
    )
    command = [sys.executable, "-c", code, "data", "get", "m3fd", "--yes"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FUSIONLAB_MIRROR": server.address}
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background, too
    with subprocess.Popen(
        command, env=environment, stdout=-3, stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    ) as process:
        deadline = time.monotonic() + 60
        while len(server.asked) < 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert len(server.asked) == 4
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begin < 9  # and not the 10 seconds that the server stalls
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped"
    assert "Traceback" not in errors
    assert held() == set()


# --- a mirror with a password ---


@pytest.mark.parametrize(
    "fault", ["", "404", "circle", "moved", "corrupt", "drip", "reset", "to a file", "silent"]
)
@pytest.mark.parametrize("command", [["get", "m3fd", "--yes"], ["verify", "m3fd", "--online"]])
def test_no_password_is_printed(server, monkeypatch, tally, fault, command):
    tally["inputs"] += 1
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)
    monkeypatch.setattr(fetch, "RETRIES", 0)
    monkeypatch.setenv("FUSIONLAB_MIRROR", server.address.replace("://", "://me:s3cr%40t@"))
    server.faults[SICK] = [fault]
    done = CliRunner().invoke(cli.app, ["data", *command])
    output = done.stdout + done.stderr
    assert "s3cr" not in output
    assert "me:" not in output
    assert server.authorised.keys() == {"Basic bWU6czNjckB0"}


@pytest.mark.parametrize(
    "mirror_name",
    [
        "http://me:s3cret@no.such.host.invalid",
        "http://me:s3/cret@127.0.0.1/",
        "http://me:s3cret@[::1/",
        "http://me:s3cret@127.0.0.1:port/",
        "http://me:s3cret@/",
        "HTTP://me:s3cret@no.such.host.invalid",
        "ftp://me:s3cret@127.0.0.1/",
        "//me:s3cret@127.0.0.1/",
    ],
)
@pytest.mark.parametrize(
    "command", [["data", "get", "m3fd", "--yes"], ["data", "verify", "m3fd", "--online"], ["doctor"]]
)
def test_nor_of_an_address_that_cannot_be_used(mirror, monkeypatch, tally, mirror_name, command):
    tally["inputs"] += 1
    monkeypatch.setenv("FUSIONLAB_MIRROR", mirror_name)
    monkeypatch.setattr(fetch, "RETRIES", 0)
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    done = CliRunner().invoke(cli.app, command)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "s3" not in done.output + done.stderr


def test_credentials_go_to_the_mirror_alone(server, monkeypatch, tally):
    tally["inputs"] += 1
    port = server.server_port
    monkeypatch.setattr(fetch, "TIMEOUT", 20.0)  # nobody asks twice
    monkeypatch.setenv("FUSIONLAB_MIRROR", f"http://me:s3cret@127.0.0.1:{port}")
    monkeypatch.setitem(REDIRECTS, "abroad", f"http://localhost:{port}/moved{{0}}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for file in registry.registry():
        server.faults[f"/{file.path}"] = ["abroad"]
    assert data("get", "m3fd", "--yes")[0] == 0
    assert server.authorised == {"": 4, "Basic bWU6czNjcmV0": 4}
