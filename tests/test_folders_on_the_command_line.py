"""Folders as users have them: named, nested and coloured in every published way, fused and scored."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fusionlab import cli
from fusionlab.data import open_pair, open_pairs
from fusionlab.errors import UserError

ROWS, COLUMNS = np.mgrid[0:40, 0:56]
HEAT = (40 + 200 * np.exp(-(((ROWS - 18) / 8) ** 2) - ((COLUMNS - 30) / 9) ** 2)).astype(np.uint8)
SEEN = np.stack([60 + 3 * ROWS, 40 + 2 * COLUMNS, 90 + ROWS + COLUMNS], axis=2).astype(np.uint8)
RAINBOW = np.stack([HEAT, 255 - HEAT, np.abs(HEAT.astype(int) - 140).astype(np.uint8)], axis=2)


def lay(root: Path, *names: str) -> Path:
    """Writes an image under each name: infrared where the name says so, a colour image elsewhere."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        infrared = any(part in name.lower() for part in ("ir", "_t.", "thermal", "infrared"))
        Image.fromarray(HEAT if infrared else SEEN).save(path)
    return root


def run(command: str, root: Path):
    return CliRunner().invoke(cli.app, command.format(r=root).split(" "))


def fuse(root: Path, ir: str, vi: str, *options: str):
    return run(f"fuse {{r}}/{ir} {{r}}/{vi} -o {{r}}/out --method average {' '.join(options)}".strip(), root)


def lines(done, *beginnings: str) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith(beginnings)]


# --- how names pair ---

PAIRED = {
    "one folder, _T and _RGB": (["s/7_T.jpg", "s/7_RGB.jpg", "s/8_T.jpg", "s/8_RGB.jpg"], "s", "s", "7 8"),
    "one folder, _ir and _vis": (["s/a_ir.png", "s/a_vis.png"], "s", "s", "a"),
    "suffixes in two folders": (
        ["ir/I0_lwir.png", "ir/I1_lwir.png", "vi/I0_visible.png", "vi/I1_visible.png"], "ir", "vi", "I0 I1"
    ),
    "suffix of one role": (["ir/a-thermal.png", "vi/a.png"], "ir", "vi", "a"),
    "nested": (["infrared/train/1.png", "visible/train/1.png"], "infrared", "visible", "1"),
    "webp": (["ir/0.png", "vi/0.webp"], "ir", "vi", "0"),
    "composed and decomposed": (
        [f"ir/{unicodedata.normalize('NFC', 'mué')}.png", f"vi/{unicodedata.normalize('NFD', 'mué')}.png"],
        "ir", "vi", "mué"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRED)
def test_partners_are_found_as_sets_are_published(case, tmp_path):
    names, ir, vi, paired = PAIRED[case]
    root = lay(tmp_path, *names)
    done = fuse(root, ir, vi)
    assert done.exit_code == 0, done.output
    assert sorted(path.stem for path in (root / "out").iterdir()) == paired.split()
    mean = np.asarray(Image.open(next((root / "out").iterdir())).convert("L"), dtype=int)
    grey = np.asarray(Image.fromarray(SEEN).convert("L"), dtype=int)
    assert (
        np.abs(mean - (HEAT.astype(int) + grey) / 2).mean() < 3
    )  # infrared and visible, not one of them twice
    scored = run(f"evaluate {{r}}/{ir} {{r}}/{vi} {{r}}/out --convention reference --metrics EN", root)
    assert scored.exit_code == 0, scored.output
    assert f"{len(paired.split())} of {len(paired.split())} scored" in scored.stdout
    assert lines(done, "infrared", "visible") == lines(scored, "infrared", "visible")


def test_what_was_decided_is_said_in_one_line(tmp_path):
    root = lay(tmp_path, "s/7_T.jpg", "s/7_RGB.jpg", "n/infrared/train/1.png", "n/visible/train/1.png")
    (line,) = lines(fuse(root, "s", "s"), "infrared", "visible")
    assert line.startswith("infrared names end in _T and visible names end in _RGB, set aside")
    assert "--ir-suffix and --vi-suffix" in line
    assert lines(fuse(root, "n/infrared", "n/visible"), "infrared", "visible") == [
        f"{role} images are in {root / 'n' / role / 'train'}" for role in ("infrared", "visible")
    ]


def test_endings_can_be_given_and_other_names_are_passed_over(tmp_path):
    root = lay(
        tmp_path, "s/7_hot.png", "s/7.png", "s/7_mask.png", "s/8_hot.png", "s/8_day.png", "s/8_mask.png"
    )
    assert fuse(root, "s", "s", "--ir-suffix", "_hot", "--vi-suffix", "_day").stdout.startswith(
        "1 of 2 fused"
    )
    some = fuse(root, "s", "s", "--ir-suffix", "_hot", "--vi-suffix", "_mask")
    assert some.stdout.startswith("2 of 2 fused")
    assert not lines(some, "infrared", "visible")  # nothing was decided unasked
    rest = fuse(root, "s", "s", "--ir-suffix", "_hot")  # visible is then what does not end so
    assert rest.stdout.startswith("1 of ") and lines(rest, "error: 7_mask", "error: 8_day")


def test_a_folder_of_several_methods_is_scored_by_the_ending_of_one(tmp_path):
    root = lay(tmp_path, "ir/0.png", "vi/0.png", "f/0_CBF.png", "f/0_GFF.png")
    command = "evaluate {r}/ir {r}/vi {r}/f --convention reference --metrics EN"
    refused = run(command, root)
    assert (refused.exit_code, len(refused.output.splitlines())) == (1, 1)
    assert "its name goes on there with _CBF and _GFF; say how names end, such as --fused-suffix _CBF" in (
        refused.output
    )
    assert "1 of 1 scored" in run(f"{command} --fused-suffix _GFF", root).stdout
    assert "ends in '_X', as --fused-suffix says; they are such as 0_CBF" in (
        run(f"{command} --fused-suffix _X", root).output
    )


REFUSED = {
    "one folder for both": (["ir/a.png", "ir/b.png"], "ir", "ir", "is given as infrared and as visible"),
    "one file for both": (["ir/a.png"], "ir/a.png", "ir/a.png", "are one file"),
    "not every name says its role": (
        ["s/7_T.jpg", "s/7_RGB.jpg", "s/x.jpg"], "s", "s", "with --ir-suffix and --vi-suffix how the names"
    ),
    "roles exchanged": (
        ["ir/I0_lwir.png", "vi/I0_visible.png"], "vi", "ir", "in _lwir: give infrared first"
    ),
    "zeros": (["ir/1.png", "vi/001.png", "vi/002.png"], "ir", "vi", "differs only in leading zeros"),
    "letter case": (["ir/img_0.png", "vi/IMG_0.png"], "ir", "vi", "differs only in letter case; rename"),
    "both": (["ir/img_1.png", "vi/IMG_01.png"], "ir", "vi", "differs only in letter case and leading zeros"),
    "no partner at all": (["ir/a.png", "vi/b.png"], "ir", "vi", "a.png has no partner of that name in"),
    "several parts": (
        ["infrared/a/1.png", "infrared/b/1.png", "visible/a/1.png", "visible/b/1.png"],
        "infrared", "visible", "infrared/b; give the folder that is meant as infrared",
    ),
    "different parts": (
        ["infrared/train/1.png", "visible/test/1.png"], "infrared", "visible", "give two folders of the same"
    ),
    "the root of a set": (["infrared/train/1.png", "visible/train/1.png"], ".", ".", "visible/train; give"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["fuse", "evaluate"])
@pytest.mark.parametrize("case", REFUSED)
def test_folders_that_do_not_fit_are_refused_in_one_line(case, command, tmp_path):
    names, ir, vi, message = REFUSED[case]
    root = lay(tmp_path, *names)
    if command == "fuse":
        done = fuse(root, ir, vi)
    else:
        done = run(f"evaluate {{r}}/{ir} {{r}}/{vi} {{r}}/{vi} --convention reference --metrics EN", root)
    assert done.exit_code == 1
    (line,) = lines(done, "error: ")
    assert message in line
    assert not (root / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="links need a right on Windows")
@pytest.mark.parametrize("kind", ["folder", "file", "symbolic", "hard"])
def test_links_to_one_file_or_folder_are_that(kind, tmp_path):
    root = lay(tmp_path, "ir/a.png", "ir/b.png")
    if kind == "folder":
        (root / "vi").symlink_to(root / "ir")
        assert "is given as infrared and as visible" in fuse(root, "ir", "vi").output
        return
    lay(root, "vi/b.png")
    if kind == "hard":
        (root / "vi" / "a.png").hardlink_to(root / "ir" / "a.png")
    else:
        (root / "vi" / "a.png").symlink_to(root / "ir" / "a.png")
    if kind == "file":
        assert "are one file" in fuse(root, "ir/a.png", "vi/a.png").output
        return
    for done in (
        fuse(root, "ir", "vi"),
        run("evaluate {r}/ir {r}/vi {r}/vi --convention reference --metrics EN", root),
    ):
        assert done.exit_code == 1
        assert lines(done, "error: a: ")[0].endswith("are one file; give the infrared and the visible image")
        assert done.stdout.splitlines()[-1].startswith("1 of 2")


def test_a_partner_of_an_unread_kind_is_named(tmp_path):
    root = lay(tmp_path, "ir/0.png", "ir/1.png", "vi/0.gif", "vi/1.png")
    done = fuse(root, "ir", "vi")
    assert f"{root / 'vi' / '0.gif'} is of a kind that is not read" in lines(done, "error: 0:")[0]
    assert "1 of 2 fused" in done.stdout
    (root / "vi" / "1.png").unlink()
    (root / "ir" / "1.png").unlink()
    assert "0.gif is of a kind that is not read" in fuse(root, "ir", "vi").output
    (root / "ir" / "0.png").unlink()
    assert ".gif files are not read" in fuse(root, "ir", "vi").output


def test_a_result_never_lands_beside_nested_inputs(tmp_path):
    root = lay(tmp_path, "infrared/train/1.png", "visible/train/1.png")
    command = "fuse {r}/infrared {r}/visible -o {r}/visible/train --method average"
    assert "name another folder for the results" in run(command, root).output


def test_endings_of_files_are_refused(tmp_path):
    root = lay(tmp_path, "ir.png", "vi.png")
    assert "say how names end for folders only" in fuse(root, "ir.png", "vi.png", "--ir-suffix", "r").output


# --- the same in Python ---


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["ir/a.png", "vi/a.webp"], None),
        (["a_T.png", "a_RGB.png"], None),
        (["ir/a_ir.png", "vi/a_vis.png"], None),
        (["infrared/train/a.png", "visible/train/a.png"], None),
        (
            ["infrared/train/a.png", "visible/train/a.png", "infrared/test/b.png", "visible/test/b.png"],
            "train",
        ),
        (["train/ir/a.png", "train/vi/a.png", "test/ir/b.png", "test/vi/b.png"], "train"),
    ],
)
@pytest.mark.filterwarnings("ignore:infrared:UserWarning", "ignore:visible:UserWarning")
def test_open_pairs_reads_folders_as_they_are_published(names, split, tmp_path):
    pairs = open_pairs(lay(tmp_path / "set", *names), split=split)
    assert (pairs.names, pairs.split) == (("a",), split or "all")
    assert (pairs[0].name, pairs[0].chroma is not None) == ("a", True)
    assert abs(float(pairs[0].ir.max()) * 255 - HEAT.max()) < 2


@pytest.mark.parametrize(
    "names", [["a_ir1.png", "a_x2.png", "b.png"], ["ir/a_ir1.png", "ir/c.png", "vi/a_x2.png"]]
)
def test_open_pairs_takes_endings(names, tmp_path):
    pairs = open_pairs(lay(tmp_path / "set", *names), ir_suffix="_ir1", vi_suffix="_x2")
    assert pairs.names == ("a",) and pairs[0].chroma is not None
    with pytest.raises(UserError, match="scenes has no suffix to choose; leave out ir_suffix and vi_suffix"):
        open_pairs("scenes", ir_suffix="_T")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["infrared/1/a.png", "visible/1/a.png", "infrared/x/b.png", "visible/x/b.png"], "1, x.* split='1'"),
        (["train/ir/a.png", "train/vi/a.png", "x/ir/b.png", "x/vi/b.png"], "give its subfolder train or x"),
        (["a_T.png", "a_RGB.png", "b.png"], "needs one subfolder named ir, inf or infrared, and has none"),
    ],
)  # fmt: skip
def test_open_pairs_says_how_a_set_is_laid_out(names, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_pairs(lay(tmp_path / "set", *names))


# --- colours that infrared does not have ---


@pytest.fixture
def coloured(tmp_path) -> Path:
    for name in ("a", "b", "c"):
        for role, image in (("ir", RAINBOW), ("vi", SEEN), ("grey", HEAT), ("fused", HEAT)):
            (tmp_path / role).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / role / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("ir", "vi", "workers", "said"),
    [
        ("ir", "vi", 1, "infrared is in false colours (three unequal channels)"),
        ("ir", "vi", 2, "infrared is in false colours (three unequal channels)"),
        (
            "vi",
            "grey",
            1,
            "infrared is coloured and visible is grey; if the two are exchanged, give infrared",
        ),
        ("grey", "vi", 1, None),
        ("grey", "fused", 1, None),
    ],
)
def test_coloured_infrared_is_named_once_a_run(ir, vi, workers, said, coloured):
    fused = fuse(coloured, ir, vi)
    command = f"evaluate {{r}}/{ir} {{r}}/{vi} {{r}}/fused --convention reference --metrics EN"
    scored = run(f"{command} --workers {workers}", coloured)
    for done in (fused, scored):
        assert done.exit_code == 0
        warned = lines(done, "warning: ")
        assert len(warned) == (said is not None)
        assert said is None or said in warned[0]


def test_coloured_infrared_is_named_in_python(coloured):
    (coloured / "fused").rename(coloured / "other")
    pairs = open_pairs(coloured)
    with pytest.warns(UserWarning, match="a: infrared is in false colours") as said:
        list(pairs)
    assert len(said) == 1
    with pytest.warns(UserWarning, match="infrared is coloured and visible is grey"):
        open_pair(coloured / "vi" / "a.png", coloured / "grey" / "a.png")


def test_grey_infrared_saved_in_colour_is_no_false_colour(coloured):
    noisy = np.stack([HEAT, HEAT, HEAT], axis=2)
    noisy[::3, ::3, 0] += 3  # as by a lossy format
    Image.fromarray(noisy).save(coloured / "grey" / "a.png")
    Image.fromarray(np.stack([HEAT] * 3, axis=2)).save(coloured / "grey" / "b.png")
    assert not lines(fuse(coloured, "grey", "vi"), "warning: ")
