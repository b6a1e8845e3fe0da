"""Every notebook runs at smoke, in a kernel that cannot reach the network."""

import os
import subprocess
import sys

import nbformat
import pytest

from fusionlab.bench import records
from fusionlab.data import open_pairs, write_image
from fusionlab.tools.notebooks import run_notebooks

# Seconds a cell: four times what a whole notebook may take at smoke, a guard against hangs.
LIMIT = 60


def ran(path, data, run, offline):
    """The run's records, after asserting that the notebook ended and that its records can be trusted."""
    outcome = run_notebooks([path], "smoke", data, 0, run, progress=False, limit=LIMIT, variables=offline)[0]
    assert outcome.ok, outcome.error
    made = records.read(run) if (run / "records.csv").exists() else []
    assert records.lint(made) == []
    return made


def assert_measured_on(data, made, path):
    """Records name the profile and data of the run; notebook 00 makes some, another may make none."""
    profiles, sources = {record.run.profile for record in made}, {record.data for record in made}
    if path.stem.startswith("00_"):
        assert (profiles, sources) == ({"smoke"}, {data})
    assert profiles <= {"smoke"}
    assert sources <= {data, "none"}


def test_it_runs_and_records_what_it_measured(path, tmp_path, offline, monkeypatch):
    """On real pairs where they are at hand, named by the environment, else on scenes.

    On scenes each notebook also runs in tests/device, without its solutions in test_exercises.py, and under
    nbval where it changed.
    """
    data = "tno" if os.environ.get("FUSIONLAB_MIRROR") else "scenes"
    monkeypatch.setenv("FUSIONLAB_DATA", data)
    assert_measured_on(data, ran(path, "auto", tmp_path, offline), path)


@pytest.mark.nightly
def test_it_runs_on_a_folder_of_one_pair(path, tmp_path, offline):
    pair = open_pairs("scenes", 1, seed=5, condition="dusk")[0]
    write_image(pair.ir, tmp_path / "data" / "ir" / "street.png")
    write_image(pair.colour(pair.vi), tmp_path / "data" / "vi" / "street.png")
    made = ran(path, str(tmp_path / "data"), tmp_path / "run", offline)
    assert {record.n for record in made} <= {"0", "1"}


def test_a_notebook_that_wants_the_network_fails(tmp_path, offline):
    cell = nbformat.v4.new_code_cell("import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=5)")
    path = tmp_path / "leak.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    outcome = run_notebooks(
        [path], "smoke", "scenes", 0, tmp_path / "run", progress=False, variables=offline
    )[0]
    assert not outcome.ok
    assert (
        "ConnectionError: the course works offline, but something wants to reach 192.0.2.1" in outcome.error
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "import urllib.request as r; r.urlopen('http://example.org', timeout=5)",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import socket; socket.gethostbyname('example.org')",
        "import socket; socket.socket().connect_ex(('192.0.2.1', 80))",
        "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import socket as s; s.socket(s.AF_INET6, s.SOCK_DGRAM).sendto(b'x', 0, ('2001:db8::1', 53))",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import socket; socket.socket().connect((\"192.0.2.1\", 80))'], check=True)",
    ],
)
def test_the_guard_blocks(attempt, offline):
    done = subprocess.run([sys.executable, "-c", attempt], env=offline, capture_output=True, text=True)
    assert done.returncode != 0
    assert "the course works offline" in done.stderr


def test_the_guard_leaves_this_machine_reachable(offline):
    attempt = """
import socket as s
server = s.create_server(("127.0.0.1", 0))
s.create_connection(("localhost", server.getsockname()[1]))
a, b = s.socketpair()
a.sendall(b"x")
assert b.recv(1) == b"x"
"""
    subprocess.run([sys.executable, "-c", attempt], env=offline, check=True)
