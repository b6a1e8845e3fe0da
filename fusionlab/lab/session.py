"""The set-up cell of every notebook: profile, data, seed and device in one object."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.bench.run import Run, find_profile

if TYPE_CHECKING:
    from fusionlab.data.folders import Pairs

NOTEBOOK_PROFILES = ("smoke", "laptop", "gpu")
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Session:
    """What a notebook was started with; `data` is a name or a folder, never "auto"."""

    data: str
    run: Run

    @property
    def profile(self) -> str:
        """smoke, laptop or gpu, never "auto"."""
        return self.run.profile

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn."""
        return self.run.seed

    @property
    def device(self) -> str:
        """ "cuda" where there is one, else "cpu"."""
        return self.run.device

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

    def pick(self, *, smoke: Choice, laptop: Choice, gpu: Choice) -> Choice:
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

    resolved = find_profile(os.environ.get("FUSIONLAB_PROFILE") or profile, NOTEBOOK_PROFILES)
    overridden = f" (FUSIONLAB_PROFILE overrides {profile})" if profile not in ("auto", resolved) else ""
    data = resolve_data(data)
    folder = os.environ.get("FUSIONLAB_RUN")
    # A kernel's own command line says nothing; `fusionlab run` hands on its own.
    command = os.environ.get("FUSIONLAB_COMMAND", "")
    run = Run.begin(Path(folder) if folder else None, resolved, seed, command=command)
    caption = caption_of(data)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    versions = f"python {platform.python_version()}, torch {torch.__version__} on {run.device}"
    print(f"fusionlab {fusionlab.__version__}, {versions}")
    print(f"profile {resolved}{overridden}, data {caption}, seed {seed}")
    return Session(data, run)


def resolve_data(data: str = "auto") -> str:
    """The data a session would use: a registered name or a folder."""
    return (os.environ.get("FUSIONLAB_DATA") or "scenes") if data == "auto" else data


def caption_of(data: str) -> str:
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
    **details: Any,
) -> Record:
    """One measured number with its surroundings, also appended to the run that FUSIONLAB_RUN names.

    `details` are unit, convention, weights and note, as `table.Score` takes them.
    """
    from fusionlab.bench.table import Score, stamped

    made = stamped(target, Score(metric, value, **details, row=row), pairs, session.run)
    if session.run.folder:
        records.append(session.run.folder, made)
    return made
