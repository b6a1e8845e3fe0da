"""Runs come from a commit and cost no git; what is trained on and what is scored can be looked at."""

import hashlib
from functools import cache
from types import SimpleNamespace

import pytest

from fusionlab.bench import table
from fusionlab.data import open_pairs
from fusionlab.methods import mmdrfuse
from fusionlab.targets import comofusion


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """Runs made by tests come from a commit, and the machine has no profile of its own."""
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: "c" * 40)
    monkeypatch.delenv("FUSIONLAB_PROFILE", raising=False)


def pixels(images):
    """Each visible image by the hash of its values, so that one picture under two names is still one."""
    return [hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest()[:12] for image in images]


@cache
def of_split(data, split):
    """All pictures of a registered split, read once."""
    return frozenset(pixels(pair.vi for pair in open_pairs(data, split=split)))


@pytest.fixture
def seen(monkeypatch):
    """`scored`, one list of pictures a mean over pairs; `trained`, one a training; and `of` for pairs."""
    found = SimpleNamespace(scored=[], trained=[], of=lambda pairs: pixels(pair.vi for pair in pairs))
    collected, crops, train = table.collected, mmdrfuse.crops, comofusion.train

    def watched_collected(scores_of, pairs, *arguments):
        found.scored.append([])

        def watched(pair):
            found.scored[-1] += pixels([pair.vi])
            return scores_of(pair)

        return collected(watched, pairs, *arguments)

    def watched_crops(pairs, *arguments):
        found.trained.append(found.of(pairs))
        return crops(pairs, *arguments)

    def watched_train(recipe, images, *arguments):
        found.trained.append(pixels(vi for _, vi in images))
        return train(recipe, images, *arguments)

    monkeypatch.setattr(table, "collected", watched_collected)
    monkeypatch.setattr(mmdrfuse, "crops", watched_crops)
    monkeypatch.setattr(comofusion, "train", watched_train)
    return found


@pytest.fixture
def assert_apart(seen):
    """Asserts that every mean was over `unseen` whole, and every training on some of `allowed` alone."""

    def check(unseen, allowed, trainings):
        wanted = seen.of(unseen)
        allowed = set(seen.of(allowed)) if allowed.data == "scenes" else of_split(allowed.data, allowed.split)
        assert seen.scored and all(scored == wanted for scored in seen.scored)
        assert len(seen.trained) == trainings
        assert all(trained and set(trained) <= allowed for trained in seen.trained)
        assert allowed.isdisjoint(wanted)

    return check
