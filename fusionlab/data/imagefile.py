"""An image file opened with care: one that never ends is not read, one too large or damaged not decoded."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fusionlab.errors import UserError
from fusionlab.paths import open_regular

# File suffix -> what Pillow calls the format: those written, and those read.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
READABLE = FORMATS | {".webp": "WEBP"}

BITS_TAG = 258  # of TIFF

# Width times height, more than cameras for fusion have: a file of kilobytes can claim gigapixels.
MAX_PIXELS = 40_000_000
MAX_BYTES = 16 * MAX_PIXELS  # of a file: uncompressed 16-bit RGBA has 8 a pixel


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file, the first `limit` if it is given, all of any number for -1.

    Raises UserError where it cannot be read, has more than MAX_BYTES where no limit is given, or is a pipe or
    device, which may never end.
    """
    try:
        with open_regular(path) as stream:
            if limit is None and (size := os.fstat(stream.fileno()).st_size) > MAX_BYTES:
                raise UserError(_too_large(path, f"{size / 1e9:.1f} GB"))
            return stream.read(-1 if limit is None else limit)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path") from error


def open_image(data: bytes, path: str | Path) -> Image.Image:
    """The decoded image that the bytes of a file hold, turned upright; the path serves the error messages.

    Raises UserError for what is empty, damaged, truncated, too large or of an unknown kind.

    Decoding from bytes and not from the path keeps Pillow from mapping the file into memory, where it turns
    TIFF files with an orientation the wrong way (seen in Pillow 13.0).
    """
    if not data:
        raise UserError(f"{path} is empty (0 bytes); fetch or write it again")
    try:
        image = _open(data, path)
        if image.format == "TIFF":
            _check_tiff(image, path)
        elif image.format == "PNG":
            _check_png(data, path)
        # Further pictures of a camera's MPO file are previews; those of a TIFF or PNG may be anything.
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        image = ImageOps.exif_transpose(image)
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if _bits_of_tiff(data) == 64:
            raise UserError(
                f"{path} is a TIFF of a kind that cannot be read (64 bits a value); save it with float32 "
                "values, such as numpy's astype('float32')"
            ) from error
        raise UserError(
            f"{path} is no PNG, JPEG, BMP, TIFF or WebP image, or has no pixels; convert or fetch it again"
        ) from error
    # Pillow's decoders raise almost any exception on damaged bytes.
    except Exception as error:
        raise UserError(f"{path} is damaged ({error}); fetch or convert it again") from error
    if pages > 1:
        raise UserError(f"{path} holds {pages} images; save the one that is meant to a file of its own")
    return image


def _open(data: bytes, path: str | Path) -> Image.Image:
    """The image of a file, its header alone read; raises UserError where it has too many pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
        try:
            image: Image.Image = Image.open(io.BytesIO(data), formats=sorted(set(READABLE.values())))
        except Image.DecompressionBombError as error:
            raise UserError(_too_large(path, str(error))) from error
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_large(path, f"{image.width}x{image.height} pixels"))
    return image


def _too_large(path: str | Path, found: str) -> str:
    most = f"at most {MAX_PIXELS // 10**6} million pixels are read"
    return f"{path} is too large to open safely ({found}, {most}); cut it into tiles, or shrink it"


def _check_png(data: bytes, path: str | Path) -> None:
    """Refuses a PNG with wrong checksums or missing rows, which Pillow reads in silence (seen in 13.0)."""
    width, height, depth, kind, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    expected = sum(
        rows * (1 + (columns * bits + 7) // 8)  # a row begins with the number of its filter
        for rows, columns in _png_passes(height, width, bool(interlaced))
        if columns
    )
    stream = zlib.decompressobj()
    palette, found, place = False, 0, 8
    while place + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        chunk, checksum = data[place + 4 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        place += 12 + length
        if name in (b"IDAT", b"PLTE") and zlib.crc32(chunk) != int.from_bytes(checksum, "big"):
            raise UserError(f"{path} is damaged (wrong checksum, or truncated); fetch or convert it again")
        palette = palette or name == b"PLTE"
        rest = chunk[4:] if name == b"IDAT" else b""
        while rest and found <= expected:
            found += len(stream.decompress(rest, 2**20))
            rest = stream.unconsumed_tail
    if found < expected:
        found += len(stream.flush())
    if kind == 3 and not palette:
        raise UserError(f"{path} is damaged (it has no palette); fetch or convert it again")
    if found < expected:
        raise UserError(f"{path} is truncated ({found} of {expected} bytes of pixels); fetch it again")


def _png_passes(height: int, width: int, interlaced: bool) -> Iterator[tuple[int, int]]:
    """Rows and columns of each pass: one, or the seven of Adam7 (PNG specification, 8.2)."""
    if not interlaced:
        yield height, width
        return
    for top, left, down, right in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        yield -(-max(height - top, 0) // down), -(-max(width - left, 0) // right)


def _bits_of_tiff(data: bytes) -> int:
    """How many bits a value has that a TIFF says to hold, also where Pillow reads no further; 0 of others."""
    header = data[: 16 if data[2:4] in (b"\x2b\0", b"\0\x2b") else 8]  # BigTIFF, else TIFF
    try:
        tags = ImageFileDirectory_v2(header)
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        return max(tags.get(BITS_TAG, (1,)))
    except Exception:  # as of damaged bytes above: it is no TIFF, or its tags cannot be read
        return 0


def _check_tiff(image: Image.Image, path: str | Path) -> None:
    """Refuses the kinds of TIFF that Pillow silently opens with wrong values (seen in Pillow 13.0)."""
    tags = image.tag_v2  # type: ignore[attr-defined]  # Image.open cannot say that this is a TiffImageFile
    photometric_tag, planar_tag, sample_format_tag = 262, 284, 339
    bits = set(tags.get(BITS_TAG, (1,)))
    wrong = {
        "signed integers": 2 in tags.get(sample_format_tag, (1,)),
        "12 bits": not bits <= {1, 2, 4, 8, 16, 32},
        "more than 8 bits, white is zero": max(bits) > 8 and tags.get(photometric_tag) == 0,
        "more than 8 bits, planes apart": max(bits) > 8
        and tags.get(planar_tag) == 2
        and len(image.getbands()) > 1,
    }
    for kind, found in wrong.items():
        if found:
            raise UserError(
                f"{path} is a TIFF of a kind that cannot be read ({kind}); save it as a 16-bit PNG"
            )
