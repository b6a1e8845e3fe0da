"""Every notebook runs at smoke, in a kernel that cannot reach the network."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fusionlab.bench import records
from fusionlab.data import open_pairs, write_image
from fusionlab.tools.notebooks import run_notebooks

# Seconds a cell: four times what a whole notebook may take at smoke, a guard against hangs.
LIMIT = 60
# Seeds that no notebook was written with.
OTHER_SEEDS = (101, 202, 303)
# The assertions that depend on the seed, with the reason why they hold for any.
SEED_DEPENDENT = list(csv.DictReader((Path(__file__).parent / "seeds.csv").read_text("utf-8").splitlines()))


def ran(path, data, run, offline, seed=0):
    """The run's records, after asserting that the notebook ended and that its records can be trusted."""
    outcomes = run_notebooks([path], "smoke", data, seed, run, progress=False, limit=LIMIT, variables=offline)
    outcome = outcomes[0]
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
@pytest.mark.parametrize("seed", OTHER_SEEDS)
def test_its_claims_hold_for_seeds_it_was_not_tuned_on(path, seed, tmp_path, offline):
    ran(path, "scenes", tmp_path, offline, seed)


@pytest.mark.parametrize("row", SEED_DEPENDENT, ids=[row["cell"] for row in SEED_DEPENDENT])
def test_the_table_of_assertions_that_depend_on_the_seed_is_fresh(row, notebooks):
    path = next(path for path in notebooks if path.stem.startswith(row["notebook"] + "_"))
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    assert f"assert {row['assertion']}" in cells[row["cell"]]
    assert len(row["holds because"]) > 20


@pytest.mark.nightly
@pytest.mark.parametrize("count", [1, 2])
def test_one_pair_is_enough_and_so_are_two(path, count, tmp_path, offline):
    for pair in open_pairs("scenes", count, seed=5, condition="dusk"):
        write_image(pair.ir, tmp_path / "data" / "ir" / f"{pair.name}.png")
        write_image(pair.colour(pair.vi), tmp_path / "data" / "vi" / f"{pair.name}.png")
    made = ran(path, str(tmp_path / "data"), tmp_path / "run", offline)
    assert {record.n for record in made} <= {"0", str(count)}


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
