"""Reading, colour and writing, against Pillow and closed forms."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fusionlab.data.pair import (
    Pair,
    decode_image,
    luminance,
    read_image,
    rgb_to_ycbcr,
    to_uint8,
    write_image,
    ycbcr_to_rgb,
)
from fusionlab.errors import UserError

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pixels(dtype, channels=0):
    """Arrays (H, W) or (H, W, channels) of odd and even sizes, the whole range of values."""
    sides = st.integers(1, 9)
    shape = st.tuples(sides, sides, *[st.just(channels)] * bool(channels))
    return shape.flatmap(lambda size: hnp.arrays(dtype, size))


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def planes(image: torch.Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W) or (H, W, 3)."""
    return image[0].permute(1, 2, 0).squeeze(2).numpy()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its header values (colour 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA) and filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit PNG of 2, 3 or 4 channels, which Pillow itself cannot write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, 16, {2: 4, 3: 2, 4: 6}[channels], rows)


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """An uncompressed little-endian TIFF with any tags, written from the specification (TIFF 6.0)."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder("<"))
    if tags.get("planar") == 2:
        data = np.ascontiguousarray(data.transpose(2, 0, 1))
    start, plane = 8 + 2 + 12 * 12 + 4, values[..., 0].nbytes if values.ndim == 3 else values.nbytes
    split = channels if tags.get("planar") == 2 else 1
    extra = struct.pack("<3H", *[8 * values.itemsize] * 3) + b"\0\0"
    offsets, counts = [start + 40 + i * plane for i in range(split)], [values.nbytes // split] * split
    extra += (
        struct.pack("<3I", *(offsets + [0, 0])[:3]) + struct.pack("<3I", *(counts + [0, 0])[:3]) + b"\0" * 8
    )
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, tags.get("bits", 8 * values.itemsize) if channels == 1 else start),
        (259, 3, 1, 1),
        (262, 3, 1, tags.get("photometric", 2 if channels == 3 else 1)),
        (273, 4, split, offsets[0] if split == 1 else start + 8),
        (274, 3, 1, tags.get("orientation", 1)),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, split, counts[0] if split == 1 else start + 20),
        (284, 3, 1, tags.get("planar", 1)),
        (339, 3, 1, kind),
    ]
    ifd = struct.pack("<H", 12) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", 8) + ifd + extra + data.tobytes()


# --- reading ---


@quick
@given(values=pixels(np.uint8), kind=st.sampled_from(["PNG", "BMP", "TIFF"]))
def test_grey_8_bit_is_exact(values, kind):
    image = decode_image(file_of(Image.fromarray(values), kind), "grey")
    assert image.shape == (1, 1, *values.shape)
    assert image.dtype == torch.float32
    assert np.array_equal(planes(image), values.astype(np.float32) / 255)


@quick
@given(values=pixels(np.uint16), kind=st.sampled_from(["PNG", "TIFF"]))
def test_grey_16_bit_is_exact(values, kind):
    image = decode_image(file_of(Image.fromarray(values), kind), "grey")
    assert np.array_equal(planes(image), values.astype(np.float32) / 65535)


@quick
@given(values=pixels(np.uint8, 3), kind=st.sampled_from(["PNG", "BMP", "TIFF"]))
def test_rgb_is_exact_and_equal_channels_become_one(values, kind):
    image = decode_image(file_of(Image.fromarray(values), kind), "rgb")
    grey = (values == values[..., :1]).all()
    assert image.shape[1] == (1 if grey else 3)
    assert np.array_equal(planes(image), (values[..., 0] if grey else values).astype(np.float32) / 255)


@quick
@given(values=pixels(np.uint8, 4), kind=st.sampled_from(["PNG", "TIFF"]))
def test_alpha_is_dropped_not_composited(values, kind):
    rgb = file_of(Image.fromarray(values[..., :3].copy()), "PNG")
    assert torch.equal(decode_image(file_of(Image.fromarray(values), kind), "a"), decode_image(rgb, "rgb"))
    grey_alpha = Image.merge("LA", [Image.fromarray(values[..., i].copy()) for i in (0, 3)])
    grey = decode_image(file_of(grey_alpha, kind), "la")
    assert np.array_equal(planes(grey), values[..., 0].astype(np.float32) / 255)


@quick
@given(values=pixels(np.uint16, 3))
def test_16_bit_colour_is_right_within_one_grey_level(values):
    grey = (values >> 8 == (values >> 8)[..., :1]).all()
    image = planes(decode_image(png16(values), "rgb16"))
    assert np.abs(image - (values[..., 0] if grey else values) / 65535).max() < 1 / 255
    with_alpha = np.concatenate([values, values[..., ::-1][..., :1]], axis=2)
    assert np.array_equal(planes(decode_image(png16(with_alpha), "rgba16")), image)
    grey_alpha = planes(decode_image(png16(values[..., :2].copy()), "la16"))
    assert np.abs(grey_alpha - values[..., 0] / 65535).max() < 1 / 255
    assert np.array_equal(planes(decode_image(tiff(values), "tiff16")), image)


@quick
@given(values=pixels(np.uint8))
def test_palette_and_one_bit(values):
    rng = np.random.default_rng(0)
    colours = rng.permutation(256 * 3).astype(np.uint8).reshape(256, 3)
    colours[:, 1] = colours[:, 0] ^ 1  # so that no entry is grey
    palette = Image.fromarray(values)
    palette.putpalette(colours.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image(file_of(palette, "PNG", transparency=bytes(range(256))), "palette")
    assert np.array_equal(planes(image), colours[values].astype(np.float32) / 255)

    bits = Image.fromarray(values > 127)
    assert bits.mode == "1"
    for kind in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(planes(decode_image(file_of(bits, kind), "bits")), values > 127)


@quick
@given(values=pixels(np.uint32).map(lambda a: (a / 0xFFFFFFFF).astype(np.float32)))
def test_float_tiff_is_exact(values):
    assert np.array_equal(planes(decode_image(file_of(Image.fromarray(values), "TIFF"), "float")), values)


def test_jpeg_grey_colour_and_cmyk():
    ramp = np.linspace(0, 255, 32 * 24).reshape(24, 32).astype(np.uint8)
    grey = decode_image(file_of(Image.fromarray(ramp), "JPEG", quality=100), "grey")
    three = decode_image(file_of(Image.fromarray(np.stack([ramp] * 3, 2)), "JPEG", quality=100), "three")
    assert grey.shape == three.shape == (1, 1, 24, 32)
    assert np.abs(planes(grey) * 255 - ramp).max() < 2
    colour = np.stack([ramp, 255 - ramp, np.full_like(ramp, 90)], 2)
    rgb = decode_image(file_of(Image.fromarray(colour), "JPEG", quality=100, subsampling=0), "rgb")
    ink = Image.fromarray(colour).convert("CMYK")
    cmyk = decode_image(file_of(ink, "JPEG", quality=100, subsampling=0), "cmyk")
    for image in (rgb, cmyk):
        assert np.abs(planes(image) * 255 - colour).max() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "16-bit TIFF"])
def test_exif_orientation_is_applied(kind, orientation, tmp_path):
    upright = np.kron(np.array([[0, 60, 120], [180, 220, 255]]), np.ones((8, 8))).astype(np.uint8)
    undo = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose}
    undo |= {6: np.rot90, 7: lambda a: np.rot90(np.transpose(a), 2), 8: lambda a: np.rot90(a, -1)}
    stored = np.ascontiguousarray(undo.get(orientation, np.array)(upright))
    path = tmp_path / "turned"
    if kind == "16-bit TIFF":
        path.write_bytes(tiff(stored.astype(np.uint16) * 257, orientation=orientation))
    else:
        exif = Image.Exif()
        exif[274] = orientation
        path.write_bytes(file_of(Image.fromarray(stored), kind, exif=exif))
    image = planes(read_image(path))
    assert image.shape == upright.shape
    assert np.abs(image * 255 - upright).max() < 2


def test_second_picture_of_a_camera_file_is_a_preview():
    first, second = (Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (200, 20))
    exif = Image.Exif()
    exif[274] = 6
    image = decode_image(file_of(first, "MPO", save_all=True, append_images=[second], exif=exif), "mpo")
    assert image.mean() == pytest.approx(200 / 255, abs=0.01)


# --- refusals: one test a message ---

GREY16 = np.arange(15, dtype=np.uint16).reshape(3, 5) * 4000
NAN = np.array([[0.5, np.nan]], dtype=np.float32)
INF = np.array([[0.5, np.inf]], dtype=np.float32)
GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
REFUSED = {
    "empty": (b"", r"empty \(0 bytes\); fetch"),
    "text": (b"hello", "is no PNG, JPEG, BMP, TIFF or WebP image, .*; convert"),
    "gif": (file_of(GREY, "GIF"), "is no PNG, JPEG, BMP, TIFF or WebP image, .*; convert"),
    "no width": (png(0, 4, 8, 0, b""), "or has no pixels; convert or fetch"),
    "bomb error": (png(20_000, 20_000, 8, 0, b""), "too large to open safely"),
    "bomb warning": (png(10_000, 10_000, 8, 0, b""), "too large to open safely"),
    "nan": (tiff(NAN), "NaN or infinite values; replace"),
    "inf": (tiff(INF), "NaN or infinite values; replace"),
    "float above 1": (
        tiff(np.array([[0, 37.5]], dtype=np.float32)),
        r"from 0 to 37.5; scale them to \[0, 1\]",
    ),
    "float below 0": (
        tiff(np.array([[-0.5, 1]], dtype=np.float32)),
        r"from -0.5 to 1; scale them to \[0, 1\]",
    ),
    "32-bit integers": (tiff(GREY16.astype(np.uint32)), "mode I; save it with 8 or 16 bits"),
    "signed": (tiff(GREY16.astype(np.int16)), r"\(signed integers\); save it as a 16-bit PNG"),
    "signed bytes": (tiff(GREY16.astype(np.int8)), r"\(signed integers\)"),
    "white is zero": (tiff(GREY16, photometric=0), r"white is zero\); save it as a 16-bit PNG"),
    "planes": (tiff(np.stack([GREY16] * 3, 2), planar=2), r"planes apart\); save it as a 16-bit PNG"),
    "float64": (tiff(GREY16.astype(np.float64)), r"\(64 bits a value\); save it with float32"),
    "uint64": (tiff(GREY16.astype(np.uint64)), r"\(64 bits a value\)"),
    "int64": (tiff(GREY16.astype(np.int64)), r"\(64 bits a value\)"),
    "12 bits": (tiff(GREY16, bits=12), r"12 bits\); save it as a 16-bit PNG"),
    "pages": (file_of(GREY, "TIFF", save_all=True, append_images=[GREY]), "holds 2 images; save the one"),
    "lab": (file_of(Image.new("LAB", (4, 4)), "TIFF"), "mode LAB; save it with 8 or 16 bits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_file_is_named_with_the_remedy(case, tmp_path):
    data, message = REFUSED[case]
    path = tmp_path / "refused.img"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"absent.png cannot be read .*; check the path"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)


def test_the_same_tiff_without_its_fault_is_read():
    """The refusals above are due to the tags, not to the writer of the test."""
    assert np.array_equal(planes(decode_image(tiff(GREY16), "ok")), GREY16.astype(np.float32) / 65535)
    three = np.stack([GREY16 >> 8, GREY16 >> 9, GREY16 >> 10], 2).astype(np.uint8)
    for planar in (1, 2):
        assert np.array_equal(planes(decode_image(tiff(three, planar=planar), "ok")) * 255, three)
    inverted = decode_image(tiff(three[..., 0].copy(), photometric=0), "white is zero, 8 bits")
    assert np.array_equal(planes(inverted), (255 - three[..., 0]).astype(np.float32) / 255)


@settings(quick, max_examples=150)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "LZW"]),
    cut=st.floats(0, 1, exclude_max=True),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
)
def test_damaged_bytes_give_an_image_or_a_user_error(kind, cut, flips):
    options = {"compression": "tiff_lzw"} if kind == "LZW" else {}
    values = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    data = bytearray(file_of(Image.fromarray(values), "TIFF" if kind == "LZW" else kind, **options))
    for place, change in flips:
        data[int(place * len(data))] ^= change
    if not flips:
        del data[int(cut * len(data)) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode_image(bytes(data), "damaged")
        except UserError:
            return
    assert image.ndim == 4
    assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_truncated_file_is_refused(kind):
    data = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)), kind)
    with pytest.raises(UserError, match="broken is damaged .*; fetch or convert it again"):
        decode_image(data[: len(data) * 2 // 3], "broken")


# --- colour ---


def test_luminance_of_the_primaries():
    """BT.601: green is .587 bright, not black."""
    primaries = torch.eye(3).view(3, 3, 1, 1)
    assert torch.allclose(luminance(primaries).flatten(), torch.tensor([0.299, 0.587, 0.114]))
    assert torch.allclose(rgb_to_ycbcr(primaries)[2, 1], torch.ones(1))
    assert torch.allclose(rgb_to_ycbcr(primaries)[0, 2], torch.ones(1))
    grey = torch.full((1, 3, 1, 1), 0.3)
    assert torch.allclose(rgb_to_ycbcr(grey).flatten(), torch.tensor([0.3, 0.5, 0.5]))


@quick
@given(values=pixels(np.uint8, 3))
def test_colour_agrees_with_pillow_and_comes_back(values):
    rgb = torch.from_numpy(values).permute(2, 0, 1)[None] / 255
    ycbcr = rgb_to_ycbcr(rgb)
    assert ycbcr.min() >= 0
    assert ycbcr.max() <= 1
    # Pillow puts neutral at 128 of 255, here it is at one half: half a level apart.
    shift = torch.tensor([0, 0.5, 0.5]).view(3, 1, 1)
    expected = np.asarray(Image.fromarray(values).convert("YCbCr"), dtype=np.float32)
    ours = np.asarray((ycbcr[0] * 255 + shift).permute(1, 2, 0))
    assert np.abs(ours - expected).max() <= 1.01  # Pillow's integer arithmetic truncates
    assert torch.allclose(ycbcr_to_rgb(ycbcr), rgb, atol=1e-6)
    # Also when the three planes are rounded to 8 bits on the way.
    rounded = ycbcr_to_rgb((ycbcr * 255).round() / 255)
    assert (rounded - rgb).abs().max() * 255 <= 1.5


def test_pair_gives_a_luminance_its_colour():
    rgb = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    ycbcr = rgb_to_ycbcr(rgb)
    pair = Pair("one", ycbcr[:, :1], ycbcr[:, :1], ycbcr[:, 1:])
    assert torch.allclose(pair.colour(pair.vi), rgb, atol=1e-6)
    grey = Pair("grey", pair.ir, pair.vi)
    assert grey.colour(grey.ir) is grey.ir
    white = pair.colour(torch.ones_like(pair.vi))
    assert white.min() >= 0
    assert white.max() <= 1
    with pytest.raises(UserError, match="pair one: a luminance of shape .* fuse and colour at the size"):
        pair.colour(torch.zeros(1, 1, 5, 6))


@pytest.mark.parametrize(
    "shapes",
    [((1, 1, 4, 5), (1, 1, 4, 6), None), ((1, 3, 4, 5), (1, 1, 4, 5), None)]
    + [((1, 1, 4, 5), (1, 1, 4, 5), (1, 3, 4, 5)), ((4, 5), (4, 5), None)],
)
def test_pair_refuses_shapes_that_do_not_agree(shapes):
    ir, vi, chroma = (None if shape is None else torch.zeros(shape) for shape in shapes)
    with pytest.raises(UserError, match="pair odd: (ir|vi|chroma) has shape .* expected"):
        Pair("odd", ir, vi, chroma)


# --- writing ---


def test_clip_rounds_to_the_nearest_level():
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 255), levels.to(torch.uint8))
    assert to_uint8(torch.tensor([-3.0, 0.499 / 255, 0.501 / 255, 1.7])).tolist() == [0, 0, 1, 255]


def test_stretch_is_the_scipy_rule_for_each_image():
    image = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [0.3, 2.0]
    ).view(2, 1, 1, 1)
    expected = []
    for d in image.double().numpy():
        expected.append(np.floor((d - d.min()) * 255 / (d.max() - d.min()) + 0.5))
    ours = to_uint8(image, "stretch")
    assert ours.dtype == torch.uint8
    assert ours.shape == image.shape
    assert np.abs(ours.numpy() - np.stack(expected)).max() <= 1
    assert (ours.numpy() != np.stack(expected)).mean() < 0.01  # float32 against float64 at a half
    assert ours.amin((1, 2, 3)).tolist() == [0, 0]
    assert ours.amax((1, 2, 3)).tolist() == [255, 255]


@pytest.mark.parametrize(
    ("image", "save", "message"),
    [
        (torch.ones(1, 1, 4, 4), "stretch", "constant image cannot be stretched .* 'clip'"),
        (torch.tensor([0.5, torch.nan]), "clip", "NaN or infinite values cannot be saved"),
        (torch.tensor([0.5, torch.inf]), "stretch", "NaN or infinite values cannot be saved"),
        (torch.zeros(1, 1, 4, 4), "minmax", "no saving rule 'minmax'; use 'clip', 'stretch' or 'wrap'"),
    ],
)
def test_to_uint8_refuses(image, save, message):
    with pytest.raises(UserError, match=message):
        to_uint8(image, save)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG", ".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_written_image_is_read_back(suffix, channels, tmp_path):
    row = torch.linspace(0, 1, 21).expand(1, 1, 13, 21)
    image = torch.cat([row, row.flip(3), row * 0.5], 1)[:, :channels]
    path = tmp_path / "new" / "folder" / f"image{suffix}"
    write_image(image, path)
    back = read_image(path)
    assert back.shape == image.shape
    if "jp" in suffix:
        assert (back - image).abs().max() < 6 / 255
    else:
        assert torch.equal(to_uint8(back), to_uint8(image))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_write_uses_the_saving_rule(tmp_path):
    image = torch.linspace(0.4, 0.6, 30).view(1, 1, 5, 6)
    write_image(image, tmp_path / "s.png", "stretch")
    assert read_image(tmp_path / "s.png").max() == 1
    write_image(image, tmp_path / "s.png")
    assert read_image(tmp_path / "s.png").max() == pytest.approx(0.6)


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.png"
    write_image(torch.ones(1, 1, 4, 4), path)

    def half(self, target, *_, **__):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(UserError, match=r"kept\.png cannot be written \(disk full\)"):
        write_image(torch.zeros(1, 1, 4, 4), path)
    assert read_image(path).min() == 1
    assert list(tmp_path.iterdir()) == [path]


def test_write_refuses(tmp_path):
    with pytest.raises(UserError, match="images are not written as .webp; use .png"):
        write_image(torch.zeros(1, 1, 4, 4), tmp_path / "a.webp")
    with pytest.raises(UserError, match="files without suffix"):
        write_image(torch.zeros(1, 1, 4, 4), tmp_path / "a")
    for shape in [(4, 4), (2, 1, 4, 4), (1, 2, 4, 4), (1, 1, 0, 4)]:
        with pytest.raises(UserError, match=r"a.png: an image of shape .* write \(1, 1 or 3, H, W\)"):
            write_image(torch.zeros(shape), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
