"""Places that cannot be written, and what commands give there."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from fusionlab import cli


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by name -> content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def command(*arguments: object):
    """What `fusionlab ...` gives; a traceback is raised here."""
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def error_line(*arguments: object) -> str:
    """The one line of error with which a command ends."""
    done = command(*arguments)
    assert done.exit_code == 1, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and done.stderr.rstrip("\n").splitlines()[-1] == lines[0], done.stderr
    return lines[0]


@contextmanager
def small_disk(place: Path, kilobytes: int = 64) -> Iterator[Path]:
    """A disk of a few kilobytes at a folder; OSError where it cannot be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    size = f"size={kilobytes}k"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        raise OSError(done.stderr.decode())
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Leaves no byte of a small disk."""
    free = os.statvfs(place)
    with open(place / "filler", "wb", buffering=0) as file:
        for _ in range(free.f_bavail):
            file.write(bytes(free.f_frsize))
