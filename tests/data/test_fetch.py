"""Fetching into the cache, as the user meets it: `fusionlab data`, against servers and disks that fail."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from badserver import ROOT, SICK, data, held

from fusionlab import paths
from fusionlab.data import fetch, imagefile, open_pairs, registry
from fusionlab.errors import UserError


def every_path() -> set[str]:
    return {file.path for file in registry.registry()}


# --- a server that fails ---


def test_the_first_failure_stops_the_rest(server, monkeypatch):
    monkeypatch.setattr(fetch, "THREADS", 1)
    server.faults["/m3fd/ir/1.png"] = ["404"]
    server.faults["/m3fd/vis/1.png"] = ["silent"]  # may have begun by then, and keeps the thread busy
    assert "ir/1.png answers 404" in data("get", "m3fd", "--yes")[2][0]
    assert not server.asked["GET /m3fd/ir/2.png"] + server.asked["GET /m3fd/vis/2.png"]
    assert held() == set()
    server.faults.clear()
    assert data("get", "m3fd", "--yes")[0] == 0
    assert held() == every_path()


def test_a_failure_leaves_nobody_trying_again(server, monkeypatch):
    monkeypatch.setattr(fetch, "THREADS", 2)
    monkeypatch.setattr(fetch, "TIMEOUT", 2.0)
    server.faults["/m3fd/ir/1.png"] = ["404"]  # given up after three tries, at once
    server.faults[SICK] = ["silent"]  # tried again after 2 s unless stopped
    assert "ir/1.png answers 404" in data("get", "m3fd", "--yes")[2][0]
    assert server.asked["GET /m3fd/ir/1.png"] == 3
    assert server.asked[f"GET {SICK}"] == 1


def test_an_absent_server_is_named(server, monkeypatch):
    server.shutdown()
    server.server_close()
    code, _, errors = data("get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)
    assert re.search(r"could not be fetched .*refused", errors[0])
    assert held() == set()


def test_a_server_that_recovers_or_redirects_is_good_enough(server):
    server.faults[SICK] = ["500", "truncated", ""]
    server.faults["/m3fd/ir/2.png"] = ["moved"]
    code, out, errors = data("get", "m3fd", "--yes")
    assert (code, errors) == (0, [])
    assert out.splitlines()[-1] == f"4 of 4 files verified in {paths.cache() / 'm3fd'}, 4 fetched now"
    assert held() == every_path()
    assert server.asked[f"GET {SICK}"] == 3
    if os.name == "posix":  # a cache may be shared: a private mode would shut the others out
        assert {(paths.cache() / path).stat().st_mode & 0o777 for path in held()} == {0o644}
    assert (
        open_pairs("m3fd").caption == "m3fd, 2 of 4200 pairs"
    )  # found in the cache, the mirror being an address

    # What is verified is not asked for again; what is damaged is.
    server.asked.clear()
    (paths.cache() / "m3fd/ir/1.png").write_bytes(b"x")
    assert data("get", "m3fd")[0] == 0
    assert server.asked == {"GET /m3fd/ir/1.png": 1}
    assert held() == every_path()
    assert data("get", "m3fd") == (0, out.splitlines()[-1].replace("4 fetched", "0 fetched") + "\n", [])


def test_sources_are_addressed_by_repository_commit_and_path(server, monkeypatch):
    monkeypatch.delenv("FUSIONLAB_MIRROR")
    (file, *_) = registry.registry()
    assert fetch.address(file) == (f"https://raw.githubusercontent.com/some/one/{'c' * 40}/a%20b/ir%231.png")
    assert {fetch.address(file) for file in registry.choose("m3fd")} == {
        f"https://raw.githubusercontent.com/some/one/{'c' * 40}/a%20b/{role}%23{pair}.png"
        for role in ("ir", "vis")
        for pair in "12"
    }


def test_online_asks_without_fetching(server):
    server.faults[SICK] = ["500", ""]
    assert data("verify", "m3fd", "--online") == (0, "m3fd: 4 of 4 addresses alive (2 of 4200 pairs)\n", [])
    assert server.asked.total() == 5
    server.faults[SICK] = ["404"]
    server.faults["/m3fd/ir/2.png"] = ["silent"]
    code, out, errors = data("verify", "m3fd", "--online")
    assert (code, out) == (1, "m3fd: 2 of 4 addresses alive (2 of 4200 pairs)\n")
    assert [line.split(".png ")[1] for line in errors] == [
        "answers 404 (Not Found)",
        "gave no answer for 0.4 s",
    ]
    assert not [request for request in server.asked if request.startswith("GET")]
    assert not paths.cache().exists()


# --- terms ---


def test_terms_are_shown_and_confirmed_once(server):
    code, out, errors = data("get", "m3fd", stdin="n\n")
    assert code == 1
    assert errors == ["error: nothing of m3fd was fetched"]
    dataset = registry.datasets()["m3fd"]
    assert all(text in out for text in (dataset.licence, dataset.citation, "--yes", "4 files"))
    assert data("get", "m3fd", stdin="")[0] == 1
    assert not server.asked
    assert not paths.cache().exists()
    assert data("get", "m3fd", "--split", "one", stdin="y\n")[0] == 0
    assert held() == {"m3fd/ir/1.png", "m3fd/vis/1.png"}
    assert data("get", "m3fd", stdin="")[0] == 0  # remembered by the verified files of the other split
    assert held() == every_path()


# --- a cache that cannot be written, or leads elsewhere ---


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_takes_no_file_is_named(mirror, monkeypatch, number):
    open_ = os.open

    def refuse(path, how, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as unwritable:
        unwritable.setattr(
            "fusionlab.files.os.open",
            lambda path, how, *rest, **more: (
                refuse(path, how) if how & os.O_CREAT else open_(path, how, *rest, **more)
            ),
        )
        code, _, errors = data("get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)
    assert re.search(r"cache.m3fd.\w+.\d.png cannot be written \(.+\); .*FUSIONLAB_CACHE", errors[0])
    assert held() == set()


def test_a_disk_that_fills_up_keeps_nothing_half_written(mirror, monkeypatch):
    def fill(draft, content):
        real(draft, b"torn")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", fill)
    code, _, errors = data("get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)
    assert "cannot be written (No space left on device)" in errors[0]
    assert held() == set()


def test_a_file_in_place_of_the_cache_is_named(mirror, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("mine")
    code, _, errors = data("get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)
    assert "cannot be written" in errors[0]
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.parametrize("link", ["m3fd", "m3fd/ir", "m3fd/ir/1.png"])
def test_a_link_in_the_cache_leads_nowhere_else(mirror, tmp_path, link):
    outside = tmp_path / "outside"
    victim = outside / Path("m3fd/ir/1.png").relative_to(link) if link != "m3fd/ir/1.png" else outside
    victim.parent.mkdir(parents=True, exist_ok=True)
    victim.write_text("precious")
    place = tmp_path / "cache" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]}
    for command in (["get", "m3fd", "--yes"], ["verify", "m3fd"]):
        code, _, errors = data(*command)
        assert code == 1
        assert "leads out of the cache by a link" in errors[0]
    assert victim.read_text() == "precious"
    assert {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]} == before


def test_the_mirror_may_be_a_folder_that_lacks_a_file(mirror):
    (mirror / "m3fd/ir/2.png").unlink()
    code, _, errors = data("get", "m3fd", "--yes")
    assert code == 1
    assert "m3fd/ir/2.png is not in the mirror; add it, or unset FUSIONLAB_MIRROR" in errors[0]
    assert held() <= every_path() - {"m3fd/ir/2.png"}
    assert data("get", "m3fd", "--split", "one", "--yes")[0] == 0


# --- verify ---


def test_verify_removes_wrong_files_from_the_cache_only(mirror, monkeypatch):
    assert data("get", "m3fd", "--yes")[0] == 0
    assert data("verify", "m3fd") == (0, "m3fd: 4 of 4 files verified (2 of 4200 pairs)\n", [])
    wrong = paths.cache() / "m3fd/ir/1.png"
    content = bytearray(wrong.read_bytes())
    content[-1] ^= 1
    wrong.write_bytes(content)
    code, out, errors = data("verify", "m3fd")
    assert (code, out) == (1, "m3fd: 3 of 4 files verified (2 of 4200 pairs)\n")
    (line,) = errors
    assert "1.png differs from the registered file (SHA-256); fetch it again (it was removed)" in line
    assert not wrong.exists()

    # The mirror is the user's own: what is wrong there is named and stays.
    size = (mirror / "m3fd/ir/1.png").stat().st_size
    (mirror / "m3fd/ir/1.png").write_bytes(b"x")
    code, _, errors = data("verify", "m3fd", "--split", "one")
    assert (code, errors) == (
        1,
        [f"error: {mirror / 'm3fd/ir/1.png'} has 1 bytes, registered are {size}; fetch it again"],
    )
    assert (mirror / "m3fd/ir/1.png").read_bytes() == b"x"
    monkeypatch.delenv("FUSIONLAB_MIRROR")
    _, _, errors = data("verify", "m3fd")
    assert errors == ["error: m3fd/ir/1.png is not here; run `fusionlab data get m3fd`"]


def refused(self: Path, *_: object, **__: object) -> None:
    if self.name == "1.png":
        raise PermissionError(errno.EACCES, "Permission denied")


def test_verify_removes_only_what_it_has_read_to_be_wrong(mirror, monkeypatch):
    assert data("get", "m3fd", "--yes")[0] == 0
    place = paths.cache() / "m3fd/ir/1.png"
    with monkeypatch.context() as unreadable:
        real = imagefile.open_regular
        unreadable.setattr(imagefile, "open_regular", lambda path: refused(path) or real(path))
        _, out, errors = data("verify", "m3fd", "--split", "one")
    assert out == "m3fd: 0 of 2 files verified (1 of 4200 pairs)\n"
    assert len(errors) == 2
    assert all("cannot be read (Permission denied)" in error and "removed" not in error for error in errors)
    place.write_bytes(b"x")
    with monkeypatch.context() as unremovable:
        unremovable.setattr(Path, "unlink", refused)
        code, out, (error,) = data("verify", "m3fd")
    assert (code, out) == (1, "m3fd: 3 of 4 files verified (2 of 4200 pairs)\n")
    assert error.endswith("fetch it again (it cannot be removed: Permission denied)")
    assert place.exists()


def test_our_reading_of_a_network_is_not_fetched(monkeypatch):
    code, _, errors = data("get", "mmdrfuse", "--split", "reading", "--yes")
    assert (code, errors) == (
        1,
        ["error: mmdrfuse, split reading, is not fetched but made here; leave out --split"],
    )


def test_an_unknown_set_or_split_names_the_known(mirror):
    assert "use one of bsds500, harvard" in data("get", "kaist")[2][0]
    assert "m3fd has no split 'test'; use one of one, two" in data("verify", "m3fd", "--split", "test")[2][0]


# --- the real data and the documents ---


def test_every_set_verifies_and_roadscene_arrives_whole(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("FUSIONLAB_MIRROR", str(shared / "data"))
    code, out, errors = data("verify")
    assert (code, errors) == (0, [])
    assert out.splitlines() == [
        "bsds500: 66 of 66 files verified (66 of 500 photographs)",
        "harvard: 60 of 60 files verified (30 of 136 pairs)",
        "llvip: 29 of 29 files verified (13 of 15488 pairs)",
        "m3fd: 6 of 6 files verified (3 of 4200 pairs)",
        "mmdrfuse: 2 of 2 files verified (2 of 2 networks)",
        "msrs: 40 of 40 files verified (20 of 1444 pairs)",
        "roadscene: 442 of 442 files verified (221 of 221 pairs)",
        "tno: 84 of 84 files verified (42 of 42 pairs)",
    ]
    code, out, errors = data("get", "roadscene", "--yes")
    assert (code, errors) == (0, [])
    assert out.splitlines()[-1].startswith("442 of 442 files verified")
    assert held() == {file.path for file in registry.choose("roadscene")}
    monkeypatch.delenv("FUSIONLAB_MIRROR")
    assert data("verify", "roadscene")[0] == 0
    assert open_pairs("roadscene", split="test").caption == "roadscene, 50 of 221 pairs"


def test_list_and_verify_load_no_torch():
    code = (
        "import sys; sys.modules.update(torch=None); from fusionlab.cli import app\n"
        "for words in ['list'], ['verify', 'm3fd']: app(['data', *words], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "m3fd" in done.stdout and "Traceback" not in done.stderr, done.stderr


def test_list_says_how_much_of_each_set_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("FUSIONLAB_MIRROR", "")
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", "")
    code, out, _ = data("list")
    assert code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert list(rows) == list(registry.datasets())
    assert rows["msrs"] == "20 of 1444 pairs 8.7 MB 0 of 40 files here (test 15, train 5)"
    assert rows["m3fd"] == "3 of 4200 pairs 5.1 MB 0 of 6 files here (sample 3)"
    assert rows["mmdrfuse"].startswith("2 of 2 networks 2.2 MB 0 of 4 files here")


def test_the_readme_lists_size_source_licence_and_citation_of_every_set():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    rows = {row[0].strip("`"): row for row in cells if len(row) == 5}
    for name, dataset in registry.datasets().items():
        assert rows[name][1] == dataset.size()
        assert rows[name][3:] == [dataset.licence, dataset.citation]
        named = set(re.findall(r"`([\w.-]+/[\w.-]+)`", rows[name][2]))
        assert named == {file.repository for file in registry.choose(name) if file.repository}


def test_the_nightly_job_asks_every_address():
    nightly = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    assert ".venv/bin/fusionlab data verify --online\n" in nightly  # no name: every set


def test_only_an_explicit_get_downloads(mirror, monkeypatch):
    """Opening a set that is nowhere at hand asks no address; it says which command would."""
    monkeypatch.setenv("FUSIONLAB_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was opened"))
    with pytest.raises(UserError, match="fusionlab data get m3fd"):
        open_pairs("m3fd")


@pytest.mark.nightly
def test_reproduce_needs_no_downloader():
    code = "import sys; sys.modules.update(requests=None); from fusionlab.cli import app; app()"
    done = subprocess.run([sys.executable, "-c", code, "reproduce", "--list"], capture_output=True, text=True)
    assert (done.returncode, "mmdrfuse/table5" in done.stdout) == (0, True), done.stderr
