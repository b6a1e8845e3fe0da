"""A small registered set in a mirror."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusionlab.data import sources

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
    files = sources.load_registry(tmp_path / "registry.csv")
    monkeypatch.setattr(sources, "registry", lambda: files)
    monkeypatch.setenv("FUSIONLAB_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "mirror"
