"""Files that never end, lie about their size, are cut or flipped, or have names that are no text."""

import io
import json
import os
import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fusionlab import cli, paths
from fusionlab.data import imagefile, open_pairs, registry
from fusionlab.data.pair import decode_image, read_image
from fusionlab.errors import UserError
from fusionlab.fuser import load
from fusionlab.training import fit


def shell(*arguments: object) -> tuple[int, list[str]]:
    """Exit code and error lines of a command."""
    done = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.fixture
def images(tmp_path) -> Path:
    """One good pair in the folders ir and vi."""
    for role in ("ir", "vi"):
        (tmp_path / role).mkdir()
        Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)).save(tmp_path / role / "a.png")
    return tmp_path


# --- pipes and devices ---


@pytest.fixture(params=["pipe", "/dev/zero", "/dev/full", "/dev/urandom"])
def endless(request, tmp_path) -> Path:
    """A path that never ends, or at which reading waits for ever."""
    path = tmp_path / "endless.png"
    if request.param == "pipe":
        os.mkfifo(path)
    elif Path(request.param).is_char_device():
        path.symlink_to(request.param)
    else:
        pytest.skip(f"no {request.param} here")
    return path


@pytest.mark.timeout(60)
def test_a_pipe_or_device_is_no_image_weight_or_checkpoint(images, endless, tally):
    tally["inputs"] += 7
    good, other, out = images / "ir" / "a.png", images / "vi" / "a.png", images / "out.png"
    for command in (
        ["fuse", endless, good, "-o", out, "--method", "average"],
        ["fuse", good, endless, "-o", out, "--method", "average"],
        ["evaluate", good, other, endless, "--convention", "reference", "--metrics", "EN"],
        ["fuse", good, other, "-o", out, "--method", "mmdrfuse", "--weights", endless],
    ):
        code, errors = shell(*command)
        assert (code, len(errors)) == (1, 1), (command, errors)
        assert f"{endless} is a pipe or device and is not read; save its content to a file" in errors[0]
    weights = endless.with_suffix(".safetensors")
    endless.rename(weights)
    for refused in (
        lambda: load("mmdrfuse", weights),
        lambda: read_image(weights),
        lambda: train(weights),
    ):
        with pytest.raises(UserError, match="is a pipe or device and is not read"):
            refused()
    assert not out.exists()


def train(checkpoint: Path) -> None:
    network = torch.nn.Linear(1, 1)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    fit(
        lambda k, _: network(torch.ones(1, 1)).sum(),
        {"network": network},
        optimiser,
        steps=1,
        seed=0,
        checkpoint=checkpoint,
    )


@pytest.mark.timeout(60)
def test_what_is_opened_is_looked_at_and_not_what_was_there_before(tmp_path, monkeypatch, tally):
    """A pipe that takes a file's place between the look and the opening."""
    tally["inputs"] += 2
    (tmp_path / "was.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "is.png")
    before = os.stat(tmp_path / "was.png")
    monkeypatch.setattr(paths.os, "stat", lambda *_, **__: before)
    with pytest.raises(UserError, match="is.png is a pipe or device"):
        read_image(tmp_path / "is.png")
    with pytest.raises(UserError, match="pipe or device"):
        paths.open_regular("/dev/zero")


@pytest.mark.timeout(60)
def test_nor_is_it_read_in_a_folder_a_mirror_or_the_cache(images, endless, mirror, tally):
    tally["inputs"] += 3
    endless.rename(images / "ir" / "b.png")
    Image.new("L", (32, 32)).save(images / "vi" / "b.png")
    cached = paths.cache() / "m3fd" / "ir" / "1.png"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(images / "ir" / "b.png")
    code, errors = shell("fuse", images / "ir", images / "vi", "-o", images / "out", "--method", "average")
    assert (code, len(errors)) == (1, 1)
    assert "b.png" in errors[0]
    assert [path.name for path in (images / "out").iterdir()] == ["a.png"]
    code, errors = shell("data", "get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)  # the link leads out of the cache
    cached.unlink()
    (mirror / "m3fd/ir/1.png").unlink()
    (mirror / "m3fd/ir/1.png").symlink_to(images / "ir" / "b.png")
    code, errors = shell("data", "get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)
    assert "is not in the mirror" in errors[0]


@pytest.mark.timeout(60)
def test_a_pipe_in_the_cache_is_replaced(mirror, tally):
    tally["inputs"] += 1
    cached = paths.cache() / "m3fd" / "ir" / "1.png"
    cached.parent.mkdir(parents=True)
    os.mkfifo(cached)
    assert shell("data", "get", "m3fd", "--yes") == (0, [])
    assert cached.is_file()


@pytest.mark.timeout(60)
def test_a_pipe_among_notebooks_and_in_a_run_is_refused(tmp_path, tally):
    tally["inputs"] += 4
    (tmp_path / "notebooks").mkdir()
    os.mkfifo(tmp_path / "notebooks" / "a.ipynb")
    outcome = {"name": "a", "ok": True, "seconds": 1.0, "error": ""}
    kept = {"made": "x", "profile": "smoke", "data": "scenes", "outcomes": [outcome]}
    code, errors = shell("run", "a", "--notebooks", tmp_path / "notebooks", "--profile", "smoke")
    assert (code, len(errors)) == (1, 1)
    assert "a.ipynb is a pipe or device" in errors[0]
    for name in ("run.json", "records.csv"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        os.mkfifo(folder / name)
        code, errors = shell("report", folder)
        assert (code, len(errors)) == (1, 1)
        assert f"{name} is a pipe or device" in errors[0]
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "run.json").write_text(json.dumps(kept))
    (tmp_path / "notebooks").rename(tmp_path / "run" / "notebooks")
    assert shell("report", tmp_path / "run") == (0, [])
    assert "a.ipynb is a pipe or device" in (tmp_path / "run" / "index.html").read_text("utf-8")


# --- damaged images ---


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, depth=8, kind=0, body=b"", interlaced=0, palette=b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    middle = (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", body)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IEND", b"")


def pictures() -> dict[str, bytes]:
    """A PNG of each kind that Pillow writes, of noise, so that every byte of it matters."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    made = {
        mode: rgba.convert("RGB").convert(mode) if mode in ("P", "1") else rgba.convert(mode)
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    }
    made["I;16"] = Image.fromarray(noise.view(np.uint16)[..., 0].copy())
    files = {}
    for mode, image in made.items():
        stream = io.BytesIO()
        image.save(stream, "PNG")
        files[mode] = stream.getvalue()
    return files


PICTURES = pictures()


def refused_or_equal(data: bytes, right: torch.Tensor) -> bool:
    """Whether an image is refused with one clear line; what is read must be what it was."""
    try:
        image = decode_image(data, "x.png")
    except UserError as error:
        return str(error).startswith("x.png ") and str(error).isprintable()
    assert torch.equal(image, right)
    return False


def flips(mode: str, count: int, seed: int, tally) -> None:
    data = PICTURES[mode]
    right, chance, refused = decode_image(data, "x.png"), random.Random(seed), 0
    for _ in range(count):
        tally["inputs"] += 1
        place, bit = chance.randrange(8, len(data)), chance.randrange(8)
        changed = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        refused += refused_or_equal(changed, right)
    assert refused > 0.7 * count


@pytest.mark.parametrize("mode", PICTURES)
def test_a_flipped_bit_never_changes_a_png_in_silence(mode, tally):
    flips(mode, 20, 0, tally)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", PICTURES)
def test_nor_do_many_flipped_bits(mode, tally):
    flips(mode, 1000, 1, tally)


@pytest.mark.parametrize("mode", PICTURES)
def test_a_png_cut_anywhere_is_refused(mode, tally):
    data = PICTURES[mode]
    right = decode_image(data, "x.png")
    end = data.rindex(b"IEND") - 4  # what is missing after that holds no pixels
    for place in range(1, end, max(1, end // 25)):
        tally["inputs"] += 1
        assert refused_or_equal(data[:place], right), place


@pytest.mark.parametrize("missing", [1, 20, 490, 980, 1960])
def test_rows_that_are_missing_from_a_whole_stream_are_missed(missing, tally):
    tally["inputs"] += 1
    rows = bytes(40 * 49)
    with pytest.raises(UserError, match=rf"truncated \({1960 - missing} of 1960 bytes of pixels\)"):
        decode_image(png(48, 40, body=zlib.compress(rows[: 1960 - missing])), "x.png")


def test_a_palette_that_is_missing_is_missed(tally):
    tally["inputs"] += 1
    body = zlib.compress(bytes(40 * 49))
    assert decode_image(png(48, 40, kind=3, body=body, palette=b"\x80" * 3), "x.png").mean() == 128 / 255
    with pytest.raises(UserError, match="no palette"):
        decode_image(png(48, 40, kind=3, body=body), "x.png")


def test_a_wrong_checksum_of_the_stream_itself_is_missed_by_nobody(tally):
    tally["inputs"] += 1
    body = bytearray(zlib.compress(bytes(40 * 49)))
    body[-1] ^= 1
    with pytest.raises(UserError, match="is damaged"):
        decode_image(png(48, 40, body=bytes(body)), "x.png")


@pytest.mark.parametrize("interlaced", [0, 1])
def test_no_honest_size_is_called_truncated(interlaced, tally):
    """All sizes up to 9x9, each pass of Adam7 being empty in some, and each number of bits."""
    for kind, depth in ((0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (4, 8), (6, 16)):
        for width in range(1, 10):
            for height in range(1, 10):
                size = sum(
                    rows * (1 + -(-columns * depth * {0: 1, 2: 3, 4: 2, 6: 4}[kind] // 8))
                    for rows, columns in passes(height, width, interlaced)
                    if columns
                )
                data = png(width, height, depth, kind, zlib.compress(bytes(size)), interlaced)
                assert decode_image(data, "x.png").shape[-2:] == (height, width)
                with pytest.raises(UserError, match="truncated"):
                    decode_image(
                        png(width, height, depth, kind, zlib.compress(bytes(size - 1)), interlaced), "x"
                    )
    tally["inputs"] += 1


def passes(height: int, width: int, interlaced: int) -> list[tuple[int, int]]:
    """By counting: the pixel at (y, x) belongs to the pass that this table of 8x8 names."""
    if not interlaced:
        return [(height, width)]
    rest = ["77777777", "56565656", "77777777"]
    table = np.array([list(map(int, row)) for row in ["16462646", *rest, "36463646", *rest]])
    number = np.tile(table, (2, 2))[:height, :width]
    return [((number == n).any(1).sum(), (number == n).any(0).sum()) for n in range(1, 8)]


def test_the_synthetic_cases_of_the_bug_search(shared, tally):
    """Flipped bits that Pillow does not see in PNG are seen; formats without a checksum read as they are."""
    for file in sorted((shared / "cases" / "faults").glob("*.png")):
        tally["inputs"] += 1
        if file.stem == "la16":  # sound, and read by its upper 8 bits
            assert read_image(file).shape == (1, 1, 40, 48)
        else:
            with pytest.raises(UserError, match="truncated|wrong checksum|no palette"):
                read_image(file)


# --- too large ---


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + info + bytes(99)


def tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, width * height % 2**32)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(200)


def jpeg(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("size", [(9400, 9500), (6400, 6251), (20_000, 20_000), (65_000, 65_000)])
@pytest.mark.parametrize("make", [png, bmp, tiff, jpeg])
def test_a_header_of_too_many_pixels_is_refused_before_anything_is_decoded(make, size, monkeypatch, tally):
    tally["inputs"] += 1
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    begin = time.process_time()
    with pytest.raises(
        UserError, match=r"too large .* at most 40 million pixels are read\); cut it into tiles, or shrink"
    ):
        decode_image(make(*size), "x.png")
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("make", [png, bmp, tiff, jpeg])
def test_the_limit_is_where_it_says(make, monkeypatch, tally):
    tally["inputs"] += 1
    monkeypatch.setattr(imagefile, "MAX_PIXELS", 96)
    with pytest.raises(UserError) as within_limit:
        decode_image(make(8, 12)[:-60], "x.png")
    assert "too large" not in str(within_limit.value)
    with pytest.raises(UserError, match="too large"):
        decode_image(make(8, 13), "x.png")


def test_a_png_of_kilobytes_that_holds_six_gigabytes(tmp_path, tally):
    """Really written, and fused by the command line."""
    tally["inputs"] += 1
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * 9400)
    body = b"".join(packer.compress(row) for _ in range(9400)) + packer.flush()
    bombs = [tmp_path / "ir.png", tmp_path / "vi.png"]
    for bomb in bombs:
        bomb.write_bytes(png(9400, 9400, 8, 2, body))
        assert bomb.stat().st_size < 300_000
    code, errors = shell("fuse", *bombs, "-o", tmp_path / "o.png", "--method", "average")
    assert (code, len(errors)) == (1, 1)
    assert "9400x9400 pixels, at most 40 million pixels are read" in errors[0]


def test_a_file_larger_than_memory_is_refused(tmp_path, tally):
    tally["inputs"] += 1
    with (tmp_path / "hole.png").open("wb") as stream:
        stream.truncate(2**40)  # a hole, which takes no room
    begin = time.process_time()
    with pytest.raises(UserError, match=r"too large to open safely \(1099.5 GB"):
        read_image(tmp_path / "hole.png")
    assert time.process_time() - begin < 0.5


# --- names that are no text ---

FOREIGN = os.fsdecode(b"b\xff")


@pytest.fixture
def foreign(images) -> Path:
    """A second pair, whose name is not UTF-8."""
    for role in ("ir", "vi"):
        content = (images / role / "a.png").read_bytes()
        try:
            (images / role / f"{FOREIGN}.png").write_bytes(content)
        except OSError:
            pytest.skip("this file system takes no such name")
    return images


def test_in_a_folder_and_as_a_file_it_is_read_like_any_other(foreign, tally):
    tally["inputs"] += 3
    ir, vi, out, table = foreign / "ir", foreign / "vi", foreign / "out", foreign / "scores.csv"
    assert shell("fuse", ir, vi, "-o", out, "--method", "average") == (0, [])
    assert {path.name for path in out.iterdir()} == {"a.png", f"{FOREIGN}.png"}
    choice = ("--convention", "reference", "--metrics", "EN", "--csv", table)
    assert shell("evaluate", ir, vi, out, *choice) == (0, [])
    assert len(table.read_text("utf-8").splitlines()) == 3
    bad = f"{FOREIGN}.png"
    assert shell("fuse", ir / bad, vi / bad, "-o", foreign / bad, "--method", "average") == (0, [])
    (out / bad).write_text("no image")
    code, errors = shell("evaluate", ir, vi, out, *choice)
    assert (code, len(errors)) == (1, 1)
    assert r"b\xff.png is no PNG" in errors[0]


def test_as_a_notebook_or_the_data_of_records_it_is_refused_on_one_line(
    foreign, tmp_path, monkeypatch, tally
):
    tally["inputs"] += 3
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    folder = foreign / FOREIGN
    for role in ("ir", "vi"):
        (folder / role).mkdir(parents=True)
        (folder / role / "a.png").write_bytes((foreign / role / "a.png").read_bytes())
    notebook = foreign / f"{FOREIGN}.ipynb"
    notebook.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with pytest.raises(UserError, match="not UTF-8"):
        open_pairs(folder)
    for command in (
        ["run", notebook, "--profile", "smoke"],
        ["reproduce", "mmdrfuse/table5", "--row", "average/clip", "--profile", "smoke", "--data", folder],
    ):
        code, errors = shell(*command)
        assert (code, len(errors)) == (1, 1), (command, errors)
        assert r"b\xff" in errors[0]
        assert "not UTF-8" in errors[0], errors


def test_an_output_may_have_any_name_and_is_said_on_one_line(foreign, tally):
    tally["inputs"] += 2
    good, other = foreign / "ir" / "a.png", foreign / "vi" / "a.png"
    for name in (f"{FOREIGN}.png", "new\nline\x1b[31m.png"):
        done = CliRunner().invoke(
            cli.app, ["fuse", str(good), str(other), "-o", str(foreign / name), "--method", "average"]
        )
        assert done.exit_code == 0, done.stderr
        assert (foreign / name).is_file()
        assert len(done.stdout.splitlines()) == 1


def test_a_name_with_line_breaks_and_escapes_stays_one_line(images, tally):
    tally["inputs"] += 1
    (images / "ir" / "new\nline\x1b[31m.png").write_text("no image")
    code, errors = shell("fuse", images / "ir", images / "vi", "-o", images / "out", "--method", "average")
    assert (code, len(errors)) == (1, 1)
    assert r"new\nline\x1b[31m" in errors[0]


def test_the_registry_of_a_hostile_mirror_stays_ours(mirror, tally):
    """A mirror folder gives bytes, never names: what is larger than registered is read no further."""
    tally["inputs"] += 1
    file = registry.registry()[0]
    with (mirror / file.path).open("wb") as stream:
        stream.truncate(2**40)
    code, errors = shell("data", "get", "m3fd", "--yes")
    assert (code, len(errors)) == (1, 1)
    assert f"more than {file.bytes} bytes, registered are {file.bytes}" in errors[0]
