"""The set-up cell of every notebook: profile, data, seed and device in one object."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fusionlab.bench.records import Record, append, measured
from fusionlab.errors import UserError

if TYPE_CHECKING:
    from fusionlab.data.folders import Pairs

PROFILES = ("smoke", "laptop", "gpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """What a notebook was started with; `data` is a name or a folder, never "auto"."""

    profile: str
    data: str
    seed: int
    device: str

    def pairs(
        self,
        n: int | None = None,
        split: str | None = None,
        condition: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> "Pairs":
        """The session's first `n` pairs; `condition` and `size` shape scenes, real data has its own."""
        from fusionlab.data import open_pairs

        if self.data == "scenes":
            return open_pairs("scenes", n, seed=self.seed, split=split, condition=condition, size=size)
        return open_pairs(self.data, n, seed=self.seed, split=split)

    def pick(self, *, smoke: T, laptop: T, gpu: T) -> T:
        """The value for this session's profile."""
        return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[self.profile]


def start(profile: str = "auto", data: str = "auto", seed: int = 0) -> Session:
    """Seeds python, numpy and torch, prints one summary and returns the session.

    FUSIONLAB_PROFILE overrides `profile`; "auto" is `gpu` with CUDA, else `laptop`. Data "auto" is
    FUSIONLAB_DATA where set, else `scenes`. Raises UserError for an unknown profile or data set.
    """
    import platform

    import numpy as np
    import torch

    import fusionlab

    resolved = resolve_profile(os.environ.get("FUSIONLAB_PROFILE") or profile)
    overridden = f" (FUSIONLAB_PROFILE overrides {profile})" if profile not in ("auto", resolved) else ""
    data = resolve_data(data)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    caption = describe(data)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    versions = f"python {platform.python_version()}, torch {torch.__version__} on {device}"
    print(f"fusionlab {fusionlab.__version__}, {versions}")
    print(f"profile {resolved}{overridden}, data {caption}, seed {seed}")
    return Session(resolved, data, seed, device)


def resolve_profile(profile: str = "auto", allowed: tuple[str, ...] = PROFILES) -> str:
    """A profile by name; "auto" is FUSIONLAB_PROFILE where set, else by the machine.

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


def resolve_data(data: str = "auto") -> str:
    """The data a session would use: a registered name or a folder."""
    return (os.environ.get("FUSIONLAB_DATA") or "scenes") if data == "auto" else data


def describe(data: str) -> str:
    """The data in a phrase, without a folder's path; opens real data, so that a wrong name fails here."""
    if data == "scenes":
        return "scenes (synthetic)"
    from fusionlab.data import open_pairs

    return open_pairs(data).caption


def record(
    session: Session,
    target: str,
    row: str,
    metric: str,
    value: float,
    pairs: "Pairs | None" = None,
    **details: str,
) -> Record:
    """One measured number with its surroundings, also appended to the run that FUSIONLAB_RUN names.

    `details` are unit, convention, weights, device, note and command, as `records.measured` takes them.
    """
    details.setdefault("command", os.environ.get("FUSIONLAB_COMMAND", ""))
    details.setdefault("device", "cpu")  # where fusers are loaded unless told otherwise
    made = measured(
        target,
        row,
        metric,
        value,
        pairs,
        profile=session.profile,
        seed=session.seed,
        **details,
    )
    run = os.environ.get("FUSIONLAB_RUN")
    if run:
        append(Path(run), [made])
    return made
