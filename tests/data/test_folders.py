"""Folders of pairs, and the sequence that reads them."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from fusionlab.data import name_of, open_pairs
from fusionlab.data.folders import Pairs, match_images, open_folder, open_pair
from fusionlab.data.pair import Pair
from fusionlab.errors import UserError


def save(path: Path, height: int = 5, width: int = 7, colour: bool = False) -> np.ndarray:
    rng = np.random.default_rng(list(str(path.name).encode()))
    values = rng.integers(0, 256, (height, width, 3) if colour else (height, width), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pairs of different sizes and suffixes, the last one in colour."""
    for i, name in enumerate(["b", "a", "c.1"]):
        save(tmp_path / "set" / "ir" / f"{name}.png", 5 + i, 7)
        save(tmp_path / "set" / "vi" / f"{name}.bmp", 5 + i, 7, colour=name == "c.1")
    return tmp_path / "set"


@pytest.mark.parametrize(("ir", "vi"), [("ir", "vi"), ("INF", "Vis"), ("Infrared", "VISIBLE")])
def test_partners_are_found_in_any_spelling(folder, ir, vi):
    (folder / "ir").rename(folder / "step").rename(folder / ir)
    (folder / "vi").rename(folder / "step").rename(folder / vi)
    save(folder / "other" / "x.png")
    (folder / vi / "Thumbs.db").write_bytes(b"no image")
    (folder / ir / ".hidden.png").write_bytes(b"no image")
    (folder / ir / "d.png").mkdir()
    pairs = open_folder(folder)
    assert pairs.names == ("a", "b", "c.1")
    assert [pair.name for pair in pairs] == ["a", "b", "c.1"]
    assert [tuple(pair.ir.shape) for pair in pairs] == [(1, 1, h, 7) for h in (6, 5, 7)]
    expected = np.asarray(Image.open(folder / vi / "a.bmp"), dtype=np.float32) / 255
    assert np.array_equal(pairs[0].vi[0, 0], expected)
    assert pairs[0].chroma is None
    assert pairs[2].chroma is not None
    rgb = np.asarray(Image.open(folder / vi / "c.1.bmp"), dtype=np.float32) / 255
    assert np.allclose(pairs[2].colour(pairs[2].vi)[0].permute(1, 2, 0), rgb, atol=1e-6)


def test_pairs_are_read_one_at_a_time():
    asked = []

    def read(name):
        asked.append(name)
        return Pair(name, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))

    pairs = Pairs("tno", "test25", tuple(f"{i:02d}" for i in range(25)), read, total=42)
    assert pairs.caption == "tno, 25 of 42 pairs"
    part = pairs[3:9:2]
    assert (len(part), part.names, part.caption) == (3, ("03", "05", "07"), "tno, 3 of 42 pairs")
    assert Pairs("scenes", "test", ("1", "2"), read).caption == "scenes, 2 pairs"
    assert Pairs("scenes", "test", ("1",), read).caption == "scenes, 1 pair"
    assert asked == []
    assert (pairs[-1].name, next(iter(part)).name, pairs.read("11").name) == ("24", "03", "11")
    assert asked == ["24", "03", "11"]
    with pytest.raises(IndexError):
        pairs[25]


def test_infrared_in_colour_becomes_luminance(tmp_path):
    ir = save(tmp_path / "hot.png", colour=True)
    save(tmp_path / "seen.png")
    pair = open_pair(tmp_path / "hot.png", tmp_path / "seen.png")
    assert pair.name == "hot"
    assert np.allclose(pair.ir[0, 0], ir @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-6)
    assert pair.chroma is None
    assert open_pair(tmp_path / "hot.png", tmp_path / "seen.png", name="x").name == "x"


def test_unequal_sizes_raise_when_the_pair_is_read(folder):
    save(folder / "vi" / "a.bmp", 6, 8)
    pairs = open_folder(folder)
    assert pairs[1].name == "b"
    with pytest.raises(UserError, match=r"a.png and .*a.bmp are 7x6 and 8x6 pixels; register and crop"):
        pairs[0]


def test_damaged_file_raises_when_the_pair_is_read(folder):
    (folder / "ir" / "a.png").write_bytes(b"")
    pairs = open_folder(folder)
    assert pairs[1].name == "b"
    with pytest.raises(UserError, match=r"a.png is empty \(0 bytes\)"):
        pairs[0]


def test_missing_partner(folder):
    save(folder / "ir" / "z.png")
    with pytest.raises(
        UserError, match=r"ir.z.png has no partner of that name in .*vi; add the missing image or remove"
    ):
        open_folder(folder)
    save(folder / "vi" / "0.png")
    with pytest.raises(UserError, match=r"vi.0.png has no partner .* \(names at fault: 2\)"):
        open_folder(folder)


def test_two_files_of_one_name(folder):
    save(folder / "vi" / "a.png")
    with pytest.raises(UserError, match=r"a.bmp and a.png have one name; keep one of them"):
        open_folder(folder)


def test_several_folders_are_matched_and_every_fault_is_named(folder):
    save(folder / "vi" / "a.png")
    save(folder / "ir" / "z.png")
    whole, faults = match_images([folder / "ir", folder / "vi", folder / "ir"])
    assert list(whole) == ["b", "c.1"]
    assert whole["b"] == [folder / "ir" / "b.png", folder / "vi" / "b.bmp", folder / "ir" / "b.png"]
    assert list(faults) == ["a", "z"]
    assert faults["a"] == f"{folder / 'vi' / 'a.bmp'} and a.png have one name; keep one of them"
    assert faults["z"].startswith(
        f"{folder / 'ir' / 'z.png'} has no partner of that name in {folder / 'vi'};"
    )


def test_two_folders_of_one_role(folder):
    (folder / "visible").mkdir()
    with pytest.raises(
        UserError, match=r"set needs one subfolder named vi, vis or visible, and has vi and visible"
    ):
        open_folder(folder)


def test_no_subfolder(tmp_path):
    with pytest.raises(UserError, match=r"needs one subfolder named ir, inf or infrared, and has none"):
        open_folder(tmp_path)


def test_no_pairs(tmp_path):
    (tmp_path / "ir").mkdir()
    (tmp_path / "vi").mkdir()
    with pytest.raises(
        UserError, match=r"holds no pairs; put images of equal names into its subfolders ir and vi"
    ):
        open_folder(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"absent is no folder; check the path"):
        open_folder(tmp_path / "absent")


def test_unknown_pair(folder):
    with pytest.raises(UserError, match=r"has no pair q; its names run from a to c.1"):
        open_folder(folder).read("q")


# --- open_pairs on folders ---


@pytest.mark.parametrize("name", ["tno", "scenes"])
def test_a_folder_is_never_called_like_the_scenes_or_a_registered_set(folder, monkeypatch, name):
    folder.rename(folder.with_name(name))
    assert open_pairs(folder.with_name(name)).caption == f"folder-{name}, 3 of 3 pairs"
    assert name_of(folder.with_name(name)) == f"folder-{name}" and name_of(name) == name
    monkeypatch.chdir(folder.parent)
    assert open_pairs(f"./{name}").data == f"folder-{name}"


def test_open_pairs_takes_a_folder_and_its_first_pairs(folder, monkeypatch):
    pairs = open_pairs(folder, n=2, seed=5)
    assert (pairs.names, pairs.caption) == (("a", "b"), "set, 2 of 3 pairs")
    assert open_pairs(str(folder)).caption == "set, 3 of 3 pairs"
    monkeypatch.setenv("FUSIONLAB_DATA", str(folder))
    assert open_pairs().names == ("a", "b", "c.1")
    monkeypatch.chdir(folder.parent)
    assert open_pairs("set", n=9).names == open_pairs("./set").names == ("a", "b", "c.1")


def test_scenes_are_the_default_and_get_all_arguments(monkeypatch):
    handed_on = ModuleType("fusionlab.scenes")
    handed_on.open_scenes = lambda *arguments: arguments
    monkeypatch.setitem(sys.modules, "fusionlab.scenes", handed_on)
    monkeypatch.delenv("FUSIONLAB_DATA", raising=False)
    assert open_pairs() == open_pairs("scenes") == (8, 0, "test", None)
    assert open_pairs("auto", 3, 7, "train", "fog", (64, 80)) == (3, 7, "train", "fog", 64, 80)


def test_registered_name_wins_over_a_folder_of_that_name(folder, monkeypatch):
    folder.rename(folder.with_name("tno"))
    monkeypatch.chdir(folder.parent)
    monkeypatch.delenv("FUSIONLAB_MIRROR", raising=False)
    monkeypatch.setenv("FUSIONLAB_CACHE", str(folder.parent / "cache"))
    for data in ("./tno", "tno/", Path("tno"), "../" + folder.parent.name + "/tno"):
        assert open_pairs(data).names == ("a", "b", "c.1")
    with pytest.raises(UserError, match="84 of 84 files of tno"):
        open_pairs("tno")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"data": "kaist"},
            r"'kaist' is neither a dataset nor a folder; use one of scenes, .*tno, or a folder",
        ),
        ({"data": "./kaist"}, r"kaist is no folder; check the path"),
        ({"data": "tno", "condition": "night"}, r"tno has no condition or size to choose"),
        ({"data": "tno", "size": (64, 64)}, r"tno has no condition or size to choose"),
        ({"data": "bsds500"}, r"bsds500 holds photographs, no pairs"),
        ({"data": "tno", "n": 0}, r"n is 0; ask for at least one pair"),
    ],
)
def test_open_pairs_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        open_pairs(**arguments)


def test_a_folder_has_no_split(folder):
    with pytest.raises(UserError, match=r"is a folder and has no split 'test'; give the subfolder"):
        open_pairs(folder, split="test")
