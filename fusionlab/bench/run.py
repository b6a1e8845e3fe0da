"""A run: where its results go and what they are stamped with, made once and before any work."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from fusionlab.bench import records
from fusionlab.bench.records import Stamp
from fusionlab.errors import UserError, require_seed
from fusionlab.paths import PACKAGE, runs

# How much work, from little to much: what a table lacks falls back to the next one to the left.
PROFILES = ("smoke", "laptop", "gpu", "paper")


@dataclass(frozen=True)
class Run:
    """One call of the bench: its folder (None keeps nothing), its choices, and the stamp of its records.

    `device` is "cpu" or "cuda", where the work is done; the stamp names the machine's. `target` is what the
    folder's files of this run are called by.
    """

    folder: Path | None
    profile: str
    seed: int
    device: str
    stamp: Stamp
    target: str = "none"

    @classmethod
    def begin(
        cls,
        folder: Path | None,
        profile: str,
        seed: int = 0,
        device: str = "auto",
        command: str | None = None,
    ) -> "Run":
        """Asks git, the clock and the command line, once; `device` "auto" is CUDA where there is one.

        A folder that a run of the same stamp already wrote into is gone on with under the same number. The
        stamp counts torch's threads, since another count trains other weights. Raises UserError for a seed
        that is none, and for a command that no record can hold.
        """
        require_seed(seed)
        import torch

        from fusionlab.fuser import find_device

        chosen = find_device(device)
        packages = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy")]
        threads = f"threads {torch.get_num_threads()}"
        stamp = Stamp(
            run=folder.name if folder else "none",
            commit=commit(),
            versions=", ".join([f"python {platform.python_version()}", *packages, threads]),
            device=torch.cuda.get_device_name(chosen) if chosen == "cuda" else "cpu",
            profile=profile,
            date=datetime.now(UTC).date().isoformat(),
            command=this_command() if command is None else command,
        )
        records.utf8("".join(astuple(stamp)))
        return cls(folder, profile, seed, chosen, _numbered(stamp, folder) if folder else stamp)

    @property
    def place(self) -> Path:
        """The folder; raises UserError for a run that keeps nothing."""
        if self.folder is None:
            raise UserError("this run has no folder to write into; give it one")
        return self.folder

    def weights(self, name: str = "") -> Path:
        """Where the run keeps a network: a file that no other target, profile or seed writes."""
        return self.place / f"{'-'.join(filter(None, [self._own, name]))}-seed{self.seed}.safetensors"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints, of this target and profile; their names hold the seed."""
        return self.place / "checkpoints" / self._own

    @property
    def _own(self) -> str:
        return f"{self.target.replace('/', '-')}-{self.profile}"


def _numbered(stamp: Stamp, folder: Path) -> Stamp:
    """The stamp under the number it has in the folder, or the next free one: 20260131-120000, ...-2."""
    there = records.read_stamps(folder)
    for known in there:
        if replace(known, run="") == replace(stamp, run=""):
            return known
    taken = {known.run for known in there}
    names = [stamp.run, *(f"{stamp.run}-{number}" for number in range(2, len(taken) + 2))]
    return replace(stamp, run=next(name for name in names if name not in taken))


def new_folder(root: Path | None = None) -> Path:
    """A new folder named by the time in UTC, in `root`, by default FUSIONLAB_RUNS or `runs`."""
    root = (root or runs()).resolve()
    root.mkdir(parents=True, exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    number = 1
    while True:
        folder = root / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def find_profile(profile: str = "auto", allowed: Sequence[str] = PROFILES) -> str:
    """A profile by name; "auto" is FUSIONLAB_PROFILE where set, else gpu with CUDA and laptop without.

    Raises UserError for one that is not allowed there.
    """
    if profile == "auto":
        profile = os.environ.get("FUSIONLAB_PROFILE") or "auto"
    if profile == "auto":
        import torch

        return "gpu" if torch.cuda.is_available() else "laptop"
    if profile not in allowed:
        hint = "; paper is run by `fusionlab reproduce` only" if profile == "paper" else ""
        raise UserError(f"there is no profile {profile} here; use auto, {', '.join(allowed)}{hint}")
    return profile


def this_command() -> str:
    """The command line of this process, the program by its name only, and without a --resume of its run."""
    words = sys.argv[1:]
    if "--resume" in words:
        at = words.index("--resume")
        words = words[:at] + words[at + 2 :]
    return shlex.join([Path(sys.argv[0]).name, *words])


def commit(root: Path = PACKAGE.parent) -> str:
    """The checkout's commit, with "+dirty" where code, notebooks or data differ from it.

    Of an installation from a repository its commit, of another `wheel-<version>`; "unknown" where git does
    not answer. `promote` takes none of the last three.
    """
    if not (root / ".git").exists():
        return _installed_commit()
    head = _git(root, "rev-parse", "HEAD")
    return (
        f"{head}+dirty"
        if head and _git(root, "status", "--porcelain", "--", *_SOURCES)
        else head or "unknown"
    )


def _installed_commit() -> str:
    from fusionlab import __version__

    try:
        origin = metadata.distribution("fusionlab-course").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    return json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", f"wheel-{__version__}")


# What makes a number; a promoted table under figures/ does not make the next record dirty.
_SOURCES = ("fusionlab", "notebooks", "data", "pyproject.toml")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
