"""The registry, and registered datasets read from a local copy."""

import csv
import hashlib
import re

import numpy as np
import pytest
from PIL import Image

from fusionlab.data import open_pairs
from fusionlab.data.pair import luminance
from fusionlab.data.registry import File, choose, datasets, load_registry, registry
from fusionlab.data.sources import IR_ROLES, VI_ROLES, open_source, read_photos
from fusionlab.errors import UserError

HEADER = "dataset,split,role,pair,path,bytes,sha256,repository,commit,source"


def test_splits_and_names(mirror):
    pairs = open_source("m3fd")
    assert (pairs.data, pairs.split, pairs.names, pairs.caption) == (
        "m3fd",
        "all",
        ("1", "2"),
        "m3fd, 2 of 4200 pairs",
    )
    assert open_source("m3fd", "two").names == ("2",)
    assert open_pairs("m3fd", n=1).names == ("1",)
    assert (pairs[1].ir * 255).unique().tolist() == [82]
    assert (pairs[1].vi * 255).unique().tolist() == [83]


def test_cache_comes_before_the_mirror(mirror):
    cached = mirror.parent / "cache" / "m3fd" / "ir" / "1.png"
    cached.parent.mkdir(parents=True)
    (mirror / "m3fd" / "ir" / "1.png").replace(cached)
    assert open_source("m3fd")[0].name == "1"
    cached.write_bytes(b"other")
    with pytest.raises(
        UserError, match=r"cache.m3fd.ir.1.png has 5 bytes, registered are \d+; fetch it again"
    ):
        open_source("m3fd")[0]


def test_changed_file_of_equal_size_is_refused(mirror):
    path = mirror / "m3fd" / "vis" / "2.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    pairs = open_source("m3fd")
    assert pairs[1].name == "2"
    path.write_bytes(data)
    assert pairs[0].name == "1"
    with pytest.raises(
        UserError, match=r"2.png differs from the registered file \(SHA-256\); fetch it again"
    ):
        pairs[1]


def test_missing_files_are_named_with_the_remedy(mirror, monkeypatch):
    (mirror / "m3fd" / "vis" / "2.png").unlink()
    assert open_source("m3fd", "one").names == ("1",)
    message = (
        r"1 of 4 files of m3fd \(m3fd/vis/2.png first\) are not in .*mirror; .*`fusionlab data get m3fd`"
    )
    with pytest.raises(UserError, match=message):
        open_source("m3fd")
    monkeypatch.delenv("FUSIONLAB_MIRROR")
    with pytest.raises(UserError, match=r"4 of 4 files of m3fd .*cache; .* or give a folder of your own"):
        open_source("m3fd")


def test_unknown_names(mirror):
    with pytest.raises(UserError, match="m3fd has no split 'test'; use one of one, two"):
        open_source("m3fd", "test")
    with pytest.raises(UserError, match="no dataset 'kaist' is registered; use one of bsds500, .*, tno"):
        open_source("kaist")
    with pytest.raises(UserError, match="m3fd has no pair 3; its names run from 1 to 2"):
        open_source("m3fd").read("3")


@pytest.mark.parametrize("name", ["bsds500", "mmdrfuse"])
def test_a_set_without_pairs_is_refused(name):
    with pytest.raises(UserError, match=f"{name} holds (photographs|networks), no pairs; (read|load)"):
        open_pairs(name)


def test_photographs_are_read_by_split_and_verified(mirror, monkeypatch):
    """DMFuse trains on them: colour, sorted by name, each checked as the files of pairs are."""
    files = []
    for name, split, level in (("9", "train", 90), ("12", "train", 30), ("5", "val", 60)):
        path = mirror / "bsds500" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((3, 4, 3), (level, 0, 0), np.uint8)).save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        files.append(
            File("bsds500", split, "photo", name, f"bsds500/{name}.png", size, sha256, "s/t", "c", "x")
        )
    monkeypatch.setattr("fusionlab.data.registry.registry", lambda: files)
    photos = read_photos()
    assert [tuple(photo.shape) for photo in photos] == [(1, 3, 3, 4)] * 3
    assert [round(255 * photo[0, 0].max().item()) for photo in photos] == [30, 60, 90]
    assert [round(255 * photo[0, 0].max().item()) for photo in read_photos("val")] == [60]
    with pytest.raises(UserError, match="bsds500 has no split 'test'; use one of train, val"):
        read_photos("test")
    (mirror / "bsds500" / "9.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"9.png has 1 bytes, registered are \d+; fetch it again"):
        read_photos("train")
    (mirror / "bsds500" / "5.png").unlink()
    with pytest.raises(UserError, match=r"1 of 1 files of bsds500 \(bsds500/5.png first\) are not in"):
        read_photos("val")


HOSTILE = [
    *(
        "/etc/x.png",
        "../x.png",
        "tno/../../x.png",
        "tno/..",
        "tno/./x.png",
        "tno//x.png",
        "//host/x.png",
        "~/x",
    ),
    *(
        "tno\\..\\x.png",
        "tno/a\\b.png",
        "C:/x.png",
        "C:x.png",
        "tno/C:x.png",
        "tno/x.png:s",
        "tno/.ssh/x.png",
    ),
    *("", "tno", "tno/", "roadscene/ir/x.png", "tno2/x.png", "tno/x\0.png", "tno/x.png\n", "tno/\u202ex.png"),
]


@pytest.mark.parametrize("path", HOSTILE)
def test_registry_may_not_leave_the_data_folder(path, tmp_path):
    with open(tmp_path / "bad.csv", "w", newline="", encoding="utf-8") as stream:
        row = ["tno", "test25", "ir", "01", path, 1, "0" * 64, "s/t", "c", "x"]
        csv.writer(stream).writerows([HEADER.split(","), row])
    with pytest.raises(UserError, match=r"bad.csv: (?s:.*) leaves the data folder; correct this row"):
        load_registry(tmp_path / "bad.csv")


# --- the shipped registry and the real data ---


def test_shipped_registry_is_whole():
    files = registry()
    assert len({file.path for file in files}) == len(files) == 727 + 4
    assert {file.dataset for file in files} == set(datasets())
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.bytes > 0
        if file.split == "reading":
            assert (file.repository, file.commit, file.source) == ("", "", "")
        else:
            assert re.fullmatch(r"\w[\w.-]*/\w[\w.-]* [0-9a-f]{40}", f"{file.repository} {file.commit}")
            assert not {"", ".", ".."} & set(file.source.split("/"))
    for name, dataset in datasets().items():
        assert all([dataset.licence, dataset.citation])
        ir = sorted((file.split, file.pair) for file in choose(name) if file.role in IR_ROLES)
        vi = sorted((file.split, file.pair) for file in choose(name) if file.role in VI_ROLES)
        assert ir == vi
        assert len({pair for _, pair in ir}) == len(ir)
        assert bool(ir) == (dataset.kind == "pairs")


def test_shipped_registry_equals_the_manifest(shared):
    """Row by row; Harvard's splits, test throughout in the manifest, are named by their pair of scanners."""
    with open(shared / "data" / "manifest.csv", newline="", encoding="utf-8") as stream:
        manifest = {row["path"]: row for row in csv.DictReader(stream)}
    files = {file.path: file for file in registry() if file.role != "weights"}
    assert files.keys() == manifest.keys()
    assert len(files) == 727
    for path, file in files.items():
        row = manifest[path]
        assert (file.dataset, file.role, file.pair) == (row["dataset"], row["role"], row["pair_id"])
        assert (file.bytes, file.sha256) == (int(row["bytes"]), row["sha256"])
        assert f"{file.repository}:{file.source}@{file.commit}" == row["source"]
        assert file.split == (path.split("/")[1] if file.dataset == "harvard" else row["split"])


@pytest.mark.parametrize(
    ("name", "split", "caption"),
    [
        ("tno", None, "tno, 42 of 42 pairs"),
        ("tno", "test25", "tno, 25 of 42 pairs"),
        ("tno", "extra17", "tno, 17 of 42 pairs"),
        ("roadscene", "train", "roadscene, 150 of 221 pairs"),
        ("roadscene", "val", "roadscene, 21 of 221 pairs"),
        ("roadscene", "test", "roadscene, 50 of 221 pairs"),
        ("msrs", "test", "msrs, 15 of 361 pairs"),
        ("llvip", None, "llvip, 13 of 15488 pairs"),
        ("m3fd", "sample", "m3fd, 3 of 4200 pairs"),
        ("harvard", None, "harvard, 30 of 136 pairs"),
        ("harvard", "mri_pet", "harvard, 10 of 42 pairs"),
    ],
)
def test_captions(shared, name, split, caption):
    pairs = open_source(name, split)
    assert pairs.caption == caption
    assert list(pairs.names) == sorted(pairs.names)


@pytest.mark.parametrize(("name", "split"), [("tno", None), ("roadscene", "test")])
def test_every_real_pair_agrees_with_the_manifest_and_pillow(shared, name, split):
    with open(shared / "data" / "manifest.csv", newline="") as stream:
        rows = {(r["pair_id"], r["role"]): r for r in csv.DictReader(stream) if r["dataset"] == name}
    pairs = open_source(name, split)
    for pair in pairs:
        for role, ours in (("ir", pair.ir), ("vis", pair.vi)):
            row = rows[pair.name, role]
            assert ours.shape == (1, 1, int(row["height"]), int(row["width"]))
            grey = np.asarray(Image.open(shared / "data" / row["path"]).convert("L"), dtype=float)
            assert np.abs(grey - (ours[0, 0].double().numpy() * 255).round()).max() <= 1
        assert (pair.chroma is None) == (name == "tno")
        if pair.chroma is not None:
            visible = np.asarray(Image.open(shared / "data" / rows[pair.name, "vis"]["path"]), dtype=float)
            joined = pair.colour(pair.vi)[0].permute(1, 2, 0).double().numpy() * 255
            assert np.abs(joined - visible).max() < 0.01


def test_medical_pairs_have_mri_as_visible_and_the_colour_of_the_other(shared):
    for split, coloured in (("mri_ct", False), ("mri_pet", True), ("mri_spect", True)):
        pair = open_source("harvard", split)[0]
        other, number = split.split("_")[1], pair.name.split("_")[2]
        folder = shared / "data" / "harvard" / split
        mri = np.asarray(Image.open(folder / "mri" / f"{number}.png").convert("L"), dtype=float)
        rgb = np.asarray(Image.open(folder / other / f"{number}.png").convert("RGB"), dtype=float)
        assert np.abs(pair.vi[0, 0].double().numpy() * 255 - mri).max() <= 0.5
        assert (pair.chroma is not None) == coloured
        if coloured:
            joined = pair.colour(pair.ir)[0].permute(1, 2, 0).double().numpy() * 255
            assert np.abs(joined - rgb).max() < 0.01


def test_one_pair_of_every_other_set_and_the_photographs(shared):
    for name, size in (("msrs", (480, 640)), ("llvip", (1024, 1280)), ("m3fd", (768, 1024))):
        pair = open_source(name)[0]
        assert pair.ir.shape[-2:] == size
        assert pair.chroma is not None
    photos = read_photos("val")
    assert len(photos) == 8
    assert all(photo.shape[1] == 3 and sorted(photo.shape[-2:]) == [321, 481] for photo in photos)
    assert all(0 < luminance(photo).mean() < 1 for photo in photos)
