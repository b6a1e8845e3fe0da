"""Which values of a sensor become black and white: one range for a folder, found by a rule and said once."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fusionlab import cli
from fusionlab.data import open_pair, open_pairs, read_image
from fusionlab.errors import UserError

SIZE = (96, 128)


def temperatures(hot: float = 44.0, noise: float = 0.05) -> np.ndarray:
    """Celsius: a sloping wall of 12 to 24 degrees and, upon it, a smooth warm body."""
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    wall = 12 + 12 * columns / SIZE[1]
    body = np.exp(-(((rows - 60) / 20) ** 2) - ((columns - 90) / 16) ** 2)
    return wall + (hot - 18) * body + np.random.default_rng(5).normal(0, noise, SIZE)


# What cameras make of degrees Celsius; all of it has to come out as one and the same image.
ENCODINGS = {
    "14-bit.png": lambda degrees: np.round(7000 + 40 * degrees).astype(np.uint16),
    "14-bit.tiff": lambda degrees: np.round(7000 + 40 * degrees).astype(np.uint16),
    "centikelvin.tiff": lambda degrees: np.round(100 * degrees + 27315).astype(np.uint16),
    "kelvin.tiff": lambda degrees: (degrees + 273.15).astype(np.float32),
    "celsius.tiff": lambda degrees: (degrees - 30).astype(np.float32),
}


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def grey(path: Path) -> Path:
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return save(path, (100 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 7)).clip(0, 255).astype(np.uint8))


def expected(degrees: np.ndarray) -> np.ndarray:
    """All but the lowest and the highest thousandth of the values, from 0 to 1."""
    ordered = np.sort(degrees, axis=None)
    tail = int(0.001 * degrees.size)
    low, high = ordered[tail], ordered[-1 - tail]
    return ((degrees - low) / (high - low)).clip(0, 1)


def shell(*arguments: object):
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


# --- one image ---


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_scene_comes_out_alike_from_every_encoding_of_a_camera(encoding, tmp_path):
    degrees = temperatures()
    ir = save(tmp_path / encoding, ENCODINGS[encoding](degrees))
    with pytest.warns(
        UserWarning, match=r"^infrared: [\d.-]+ to [\d.-]+ become 0 to 1 \(auto: 0.1 to 99.9 %"
    ):
        pair = open_pair(ir, grey(tmp_path / "vis.png"))
    assert np.abs(pair.ir[0, 0].numpy() - expected(degrees)).max() < 1e-3
    assert len((pair.ir * 255).round().unique()) > 200  # 6 and 12 when divided by 65535


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_scores_do_not_depend_on_how_the_camera_stores_its_counts(encoding, tmp_path):
    degrees = temperatures()
    vi = grey(tmp_path / "vis.png")
    plain = save(tmp_path / "plain.png", np.round(255 * expected(degrees)).astype(np.uint8))
    ir = save(tmp_path / encoding, ENCODINGS[encoding](degrees))
    assert shell("fuse", plain, vi, "-o", tmp_path / "fused.png", "--method", "average").exit_code == 0
    scores = []
    for source in (plain, ir):
        choice = ("--convention", "reference", "--metrics", "VIF,SSIM,SCD", "--csv", tmp_path / "s.csv")
        done = shell("evaluate", source, vi, tmp_path / "fused.png", *choice)
        assert done.exit_code == 0, done.output
        scores.append([float(cell) for cell in (tmp_path / "s.csv").read_text().split(",")[-3:]])
    assert scores[1] == pytest.approx(scores[0], rel=0.01)


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 65535, 12288).reshape(SIZE).astype(np.uint16),
        np.linspace(9000, 60000, 12288).reshape(SIZE).astype(np.uint16),
        np.linspace(0, 255, 12288).reshape(SIZE).astype(np.uint8).astype(np.uint16) * 257,
        np.linspace(100, 140, 12288).reshape(SIZE).astype(np.uint8),
        np.linspace(0.4, 0.5, 12288).reshape(SIZE).astype(np.float32),
        np.full(SIZE, 8000, np.uint16),
    ],
    ids=["16 bits", "most of 16 bits", "8 bits times 257", "dull 8 bits", "float in 0..1", "flat"],
)
def test_images_that_use_their_range_keep_it_bit_for_bit(values, tmp_path):
    ir = save(tmp_path / ("a.tiff" if values.dtype == np.float32 else "a.png"), values)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pair = open_pair(ir, grey(tmp_path / "vis.png"))
    assert torch.equal(pair.ir, read_image(ir))
    full = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}[values.dtype]
    assert np.array_equal(pair.ir[0, 0].numpy(), values.astype(np.float32) / np.float32(full))
    lines = [str(warning.message) for warning in said]
    why = "whose values are all 8000" if values.min() == values.max() else "whose range is used"
    assert lines == (
        [f"infrared: 0 to 65535 become 0 to 1 (full: 1 image of 16 bits, {why}); "
         "the same in fuse and evaluate"] if values.dtype == np.uint16 else []
    )  # fmt: skip


def test_a_dead_pixel_takes_no_part_of_the_range(tmp_path):
    degrees = temperatures()
    counts = ENCODINGS["14-bit.png"](degrees)
    counts[3, 3], counts[7, 7] = 16383, 0
    ir = save(tmp_path / "a.png", counts)
    with pytest.warns(UserWarning, match="infrared: 7"):
        pair = open_pair(ir, grey(tmp_path / "vis.png"))
    sound = np.ones(SIZE, bool)
    sound[3, 3] = sound[7, 7] = False
    assert np.abs(pair.ir[0, 0].numpy() - expected(degrees))[sound].max() < 0.01
    assert (pair.ir[0, 0, 3, 3], pair.ir[0, 0, 7, 7]) == (1, 0)


@pytest.mark.parametrize("rule", [(10, 45), [10.0, 45.0], "10,45", " 10, 45 "])
def test_a_range_can_be_given(rule, tmp_path):
    degrees = temperatures().astype(np.float32)
    ir, vi = save(tmp_path / "a.tiff", degrees), grey(tmp_path / "vis.png")
    with pytest.warns(UserWarning, match=r"infrared: 10 to 45 become 0 to 1 \(as given\)"):
        pair = open_pair(ir, vi, ir_range=rule)
    assert np.abs(pair.ir[0, 0].numpy() - ((degrees - 10) / 35).clip(0, 1)).max() < 1e-6


def test_the_range_that_is_said_gives_the_same_image(tmp_path):
    vi = grey(tmp_path / "vis.png")
    for encoding in ENCODINGS:
        ir = save(tmp_path / encoding, ENCODINGS[encoding](temperatures()))
        with pytest.warns(UserWarning, match="auto") as said:
            by_itself = open_pair(ir, vi)
        low, _, high = str(said[0].message).split()[1:4]
        with pytest.warns(UserWarning, match="as given"):
            given = open_pair(ir, vi, ir_range=f"{low},{high}")
        assert torch.equal(given.ir, by_itself.ir)


def test_the_rules_hold_for_the_visible_image_and_by_name(tmp_path):
    ir = grey(tmp_path / "ir.png")
    vi = save(tmp_path / "vis.png", np.linspace(100, 140, 12288).reshape(SIZE).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"^visible: 100 to 139 become 0 to 1 \(auto"):
        stretched = open_pair(ir, vi, vi_range="auto")
    assert (stretched.vi.min(), stretched.vi.max()) == (0, 1)
    raw = save(tmp_path / "raw.png", np.linspace(100, 3000, 12288).reshape(SIZE).astype(np.uint16))
    with pytest.warns(UserWarning, match=r"^visible: \d+ to \d+ become 0 to 1 \(auto"):
        assert open_pair(ir, raw).vi.max() == 1
    with pytest.warns(UserWarning, match=r"^visible: the full range"):
        assert torch.equal(open_pair(ir, raw, vi_range="full").vi, read_image(raw))


@pytest.mark.parametrize("rule", ["3", "stretch", "45,10", "1,1", "nan,2", "1,2,3", (1,), 7, "0,inf"])
def test_no_range(rule, tmp_path):
    with pytest.raises(UserError, match="is no range of infrared; give auto, full or two increasing numbers"):
        open_pair(grey(tmp_path / "a.png"), grey(tmp_path / "b.png"), ir_range=rule)


def test_a_range_in_other_units_than_the_file_is_refused(tmp_path):
    ir = save(tmp_path / "a.tiff", ENCODINGS["centikelvin.tiff"](temperatures()))
    with (
        pytest.warns(UserWarning, match="as given"),
        pytest.raises(UserError, match=r"a.tiff has values from \d+ to \d+, all outside the range 10 to 45;"),
    ):
        open_pair(ir, grey(tmp_path / "b.png"), ir_range=(10, 45))


def test_flat_temperatures_have_no_range(tmp_path):
    flat = save(tmp_path / "a.tiff", np.full(SIZE, 300, np.float32))
    with pytest.raises(UserError, match="infrared: all values are 300, which have no range; give one"):
        open_pair(flat, grey(tmp_path / "b.png"))


def test_byte_swapped_counts_are_recognised_by_their_noise(tmp_path):
    vi = grey(tmp_path / "vis.png")
    for encoding in ("14-bit.png", "14-bit.tiff", "centikelvin.tiff"):
        counts = ENCODINGS[encoding](temperatures())
        with pytest.warns(UserWarning, match="look byte-swapped") as said:
            open_pair(save(tmp_path / encoding, counts.byteswap()), vi)
        assert ["byte-swapped" in str(warning.message) for warning in said].count(True) == 1
        assert "byteswap()" in str(said[-1].message)


@pytest.mark.parametrize("noise", [0, 0.05, 1, 10])
def test_other_counts_are_not_taken_for_byte_swapped(noise, tmp_path):
    vi = grey(tmp_path / "vis.png")
    rng = np.random.default_rng(3)
    images = [
        ENCODINGS["centikelvin.tiff"](temperatures(noise=noise)),
        rng.integers(0, 65536, SIZE, np.uint16),
    ]
    images += [images[0] << 1, (255 * expected(temperatures(noise=noise))).astype(np.uint16) << 4]
    for i, counts in enumerate(images):
        with pytest.warns(UserWarning, match="infrared") as said:
            open_pair(save(tmp_path / f"{i}.png", counts), vi)
        assert not any("swapped" in str(warning.message) for warning in said)


def test_counts_in_several_16_bit_channels_are_named(tmp_path):
    """Pillow reads the upper 8 bits of them: of 14-bit counts a handful of levels."""
    counts = ENCODINGS["14-bit.png"](temperatures())
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack([counts] * 3, axis=2))
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, 2, 0, 0, 0)
    body = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.warns(UserWarning, match=r"read with their upper 8 bits, of which they use \d of 256 levels"):
        open_pair(tmp_path / "a.png", grey(tmp_path / "b.png"))


# --- folders and sequences ---


@pytest.fixture
def sequence(tmp_path) -> Path:
    """Three frames of one wall; in the second an engine is hot."""
    for i, hot in enumerate((44, 90, 44)):
        save(tmp_path / "flight" / "ir" / f"{i}.tiff", ENCODINGS["centikelvin.tiff"](temperatures(hot)))
        grey(tmp_path / "flight" / "vis" / f"{i}.png")
    return tmp_path / "flight"


def test_a_wall_keeps_its_level_from_frame_to_frame(sequence):
    pairs = open_pairs(sequence)
    with pytest.warns(UserWarning, match=r"auto: 0.1 to 99.9 % of the values of 3 images") as said:
        walls = [pair.ir[0, 0, 3:20, 3:40] for pair in pairs]
    assert len(said) == 1  # once, not once a frame
    assert torch.equal(walls[0], walls[1]) and torch.equal(walls[0], walls[2])
    pooled = np.concatenate([np.asarray(Image.open(file)) for file in sorted(sequence.glob("ir/*"))])
    frames = expected(pooled.astype(float))
    with pytest.warns(UserWarning, match="auto"):
        seen = torch.cat([pair.ir[0, 0] for pair in open_pairs(sequence)])
    assert np.abs(seen.numpy() - frames).max() < 1e-6


def test_the_range_is_that_of_the_folder_and_not_of_the_pairs_asked_for(sequence):
    with pytest.warns(UserWarning, match="of 3 images"):
        first = open_pairs(sequence, n=1)[0]
    with pytest.warns(UserWarning, match="of 3 images"):
        again = open_pairs(sequence, n=3)[0]
    assert torch.equal(first.ir, again.ir)


def test_fuse_and_evaluate_take_and_say_the_same_range(sequence, tmp_path):
    out = tmp_path / "fused"
    fused = shell("fuse", sequence / "ir", sequence / "vis", "-o", out, "--method", "average")
    (line,) = [line for line in fused.stderr.splitlines() if line.startswith("infrared: ")]
    assert "of 3 images" in line
    (out / "1.png").unlink()  # the hot frame has no result; its values still count
    choice = ("--convention", "reference", "--metrics", "SSIM,SCD")
    tables = []
    for workers in (1, 2):
        file = tmp_path / f"{workers}.csv"
        scored = shell(
            "evaluate", sequence / "ir", sequence / "vis", out, *choice, "--workers", workers, "--csv", file
        )
        assert [at for at in scored.stderr.splitlines() if at.startswith("infrared: ")] == [line]
        tables.append(file.read_text())
    assert tables[0] == tables[1]
    low, _, high = line.split()[1:4]
    given = shell(
        "evaluate", sequence / "ir" / "0.tiff", sequence / "vis" / "0.png", out / "0.png", *choice,
        "--ir-range", f"{low},{high}", "--csv", tmp_path / "given.csv",
    )  # fmt: skip
    assert given.exit_code == 0
    assert (tmp_path / "given.csv").read_text().splitlines()[1] == tables[0].splitlines()[1]


def test_a_range_below_zero_can_be_given_on_the_command_line(tmp_path):
    ir, vi = save(tmp_path / "a.tiff", (temperatures() - 30).astype(np.float32)), grey(tmp_path / "b.png")
    out = tmp_path / "o.png"
    done = shell("fuse", ir, vi, "-o", out, "--method", "average", "--ir-range", "-20,15")
    assert (done.exit_code, "infrared: -20 to 15 become 0 to 1 (as given)" in done.stderr) == (0, True)


def test_pictures_beside_counts_keep_their_range(sequence):
    picture = grey(sequence / "ir" / "3.png")
    grey(sequence / "vis" / "3.png")
    with pytest.warns(UserWarning, match="of 3 images"):
        assert torch.equal(open_pairs(sequence)[3].ir, read_image(picture))


def test_counts_and_temperatures_in_one_folder_are_refused(sequence):
    save(sequence / "ir" / "3.tiff", ENCODINGS["kelvin.tiff"](temperatures()))
    grey(sequence / "vis" / "3.png")
    with pytest.raises(UserError, match="16-bit and float values in one folder have no range in common"):
        open_pairs(sequence)[0]


def test_a_damaged_frame_takes_no_part(sequence):
    (sequence / "ir" / "1.tiff").write_bytes((sequence / "ir" / "1.tiff").read_bytes()[:-9000])
    with pytest.warns(UserWarning, match="of 2 images"):
        open_pairs(sequence)[0]


@pytest.mark.parametrize("data", ["scenes", "tno"])
def test_registered_sets_and_scenes_have_no_range_to_choose(data):
    with pytest.raises(UserError, match=f"{data} has no range to choose"):
        open_pairs(data, ir_range="auto")
