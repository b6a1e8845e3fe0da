"""A pair of registered images: read from files, split into luminance and colour, joined and written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fusionlab.data.imagefile import FORMATS, open_image, read_bytes
from fusionlab.errors import UserError
from fusionlab.files import replacing

if TYPE_CHECKING:
    from fusionlab.scenes import Truth

# What the values of a file are, and the greatest of each kind; what is 0 is 0 in all of them.
Kind = Literal["8-bit", "16-bit", "float"]
GREATEST: dict[Kind, int] = {"8-bit": 255, "16-bit": 65535, "float": 1}


@dataclass(frozen=True, eq=False)
class Pair:
    """One infrared and one visible image of the same scene, registered, float32 in [0, 1].

    ir, vi: luminance, (1, 1, H, W) both. chroma: Cb and Cr of the visible image (of PET or SPECT in medical
    pairs), (1, 2, H, W), 0.5 is neutral; None where it is grey. truth: what is known of a synthetic scene.
    doubt: what its files look like that they should not, in words. Raises UserError where the shapes do not
    agree.
    """

    name: str
    ir: Tensor
    vi: Tensor
    chroma: Tensor | None = None
    truth: "Truth | None" = None
    doubt: str = ""

    def __post_init__(self) -> None:
        height, width = self.ir.shape[-2:]
        shapes = {"ir": (self.ir, 1), "vi": (self.vi, 1)}
        if self.chroma is not None:
            shapes["chroma"] = (self.chroma, 2)
        for part, (image, channels) in shapes.items():
            if image.shape != (1, channels, height, width):
                raise UserError(
                    f"pair {self.name}: {part} has shape {tuple(image.shape)}, expected "
                    f"(1, {channels}, {height}, {width}); both images must be of one size"
                )

    def colour(self, luminance: Tensor) -> Tensor:
        """Gives a luminance (1, 1, H, W) in [0, 1] the colour of the visible image.

        Returns RGB (1, 3, H, W) in [0, 1], or the luminance as it is where the visible image is grey.
        Raises UserError where the size is not that of the pair.
        """
        if luminance.shape != self.vi.shape:
            raise UserError(
                f"pair {self.name}: a luminance of shape {tuple(luminance.shape)} cannot take colour of "
                f"shape {tuple(self.vi.shape)}; fuse and colour at the size of the pair"
            )
        if self.chroma is None:
            return luminance
        return ycbcr_to_rgb(torch.cat([luminance, self.chroma.to(luminance)], dim=1))


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Luminance and colour differences, (B, 3, H, W) in [0, 1] to the same; 0.5 is neutral in Cb and Cr.

    Full-range BT.601, as in JPEG (JFIF 1.02); the weights of Y are .299, .587 and .114.
    """
    r, _, b = rgb.unbind(dim=1)
    y = _luma(rgb)
    cb, cr = 0.5 + (b - y) / 1.772, 0.5 + (r - y) / 1.402
    # Rounding alone can leave [0, 1], by about 1e-7.
    return torch.stack([y, cb, cr], dim=1).clamp(0, 1)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Inverse of rgb_to_ycbcr, (B, 3, H, W) to (B, 3, H, W) in [0, 1].

    A luminance that its colour cannot have (white with strong Cr, say) leaves the RGB cube and is clipped.
    """
    y, cb, cr = ycbcr.unbind(dim=1)
    r, b = y + 1.402 * (cr - 0.5), y + 1.772 * (cb - 0.5)
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return torch.stack([r, g, b], dim=1).clamp(0, 1)


def luminance(image: Tensor) -> Tensor:
    """The BT.601 luminance (B, 1, H, W) of a grey (B, 1, H, W) or RGB (B, 3, H, W) image in [0, 1]."""
    if image.shape[1] == 1:
        return image
    return _luma(image).clamp(0, 1).unsqueeze(1)


def _luma(rgb: Tensor) -> Tensor:
    r, g, b = rgb.unbind(dim=1)
    return 0.299 * r + 0.587 * g + 0.114 * b


@dataclass(frozen=True, eq=False)
class Raw:
    """The values of an image as its file has them: float32, (H, W) or (H, W, 3)."""

    path: str | Path
    kind: Kind
    values: NDArray[np.float32]


# How values become an image in [0, 1]: by `full`, or by a range (data/ranges.py).
Scale = Callable[[Raw], NDArray[np.float32]]


def full(raw: Raw) -> NDArray[np.float32]:
    """8-bit values by 255 and 16-bit values by 65535; float values must lie in [0, 1] already."""
    if raw.kind != "float":
        return raw.values / np.float32(GREATEST[raw.kind])
    if raw.values.min() < 0 or raw.values.max() > 1:
        found = f"from {raw.values.min():g} to {raw.values.max():g}"
        raise UserError(
            f"{raw.path} has float values {found}; scale them to [0, 1] first, or open it as a pair, which "
            "takes a range (ir_range, --ir-range)"
        )
    return raw.values


def read_image(path: str | Path, scale: Scale = full) -> Tensor:
    """Reads a PNG, JPEG, BMP, TIFF or WebP file, float32 in [0, 1]: (1, 1, H, W) if grey, else (1, 3, H, W).

    By itself the full range of the file counts: 8-bit values are divided by 255, 16-bit values by 65535, also
    where a camera used fewer of the bits, and float TIFF must lie in [0, 1]. A sensor's counts and
    temperatures are scaled by `scale`, a range that open_pair, open_pairs and the command line find for
    themselves (data/ranges.py). 16-bit RGB keeps its upper 8 bits only, as Pillow reads it (within 1/255 of
    the truth). Palettes and CMYK become RGB, three equal channels become one, EXIF orientation is applied.
    Alpha is dropped and not composited: what a sensor measured does not depend on a background.
    Raises UserError for what is missing, empty, damaged, too large, not finite or of an unknown kind.
    """
    return decode_image(read_bytes(path), path, scale)


def decode_image(data: bytes, path: str | Path, scale: Scale = full) -> Tensor:
    """As read_image, for the bytes of a file; the path serves the error messages."""
    values = scale(decode_raw(data, path))
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    image = torch.from_numpy(values)
    return image[None, None] if image.ndim == 2 else image.permute(2, 0, 1)[None].contiguous()


def decode_raw(data: bytes, path: str | Path) -> Raw:
    """The values that the bytes of a file hold, not scaled yet; raises UserError as read_image does."""
    image = open_image(data, path)
    if image.mode == "F":
        values = np.array(image, dtype=np.float32)
        if not np.isfinite(values).all():
            raise UserError(f"{path} contains NaN or infinite values; replace them before saving it")
        return Raw(path, "float", values)
    if image.mode.startswith("I;16"):
        return Raw(path, "16-bit", np.array(image, dtype=np.float32))
    if image.mode in ("1", "L", "LA"):
        return Raw(path, "8-bit", np.array(image.convert("L"), dtype=np.float32))
    if image.mode in ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        image.info.pop("transparency", None)
        return Raw(path, "8-bit", np.array(image.convert("RGB"), dtype=np.float32))
    raise UserError(f"{path} has pixels of mode {image.mode}; save it with 8 or 16 bits, grey or RGB")


def to_uint8(image: Tensor, save: str = "clip") -> Tensor:
    """8-bit values of an image by one of three rules of saving; uint8 of the same shape (..., C, H, W).

    "clip" clamps to [0, 1], then floor(255 d + .5). "stretch" maps the minimum and maximum of each image to 0
    and 255, floor(255 (d - min) / (max - min) + .5), as MMDRFuse's test script does (`imsave` of SciPy 1.2).
    "wrap" cuts the fraction off 255 d and keeps the lowest eight bits, as CAF's test script does: of a value
    below 0 it makes a nearly white one.
    Raises UserError for another rule, for NaN or infinite values, and for a constant image to be stretched.
    """
    if save not in ("clip", "stretch", "wrap"):
        raise UserError(f"no saving rule {save!r}; use 'clip', 'stretch' or 'wrap'")
    if not torch.isfinite(image).all():
        raise UserError(
            "an image with NaN or infinite values cannot be saved; look at the fuser that made it"
        )
    if save == "wrap":
        return (image * 255).to(torch.int64).remainder(256).to(torch.uint8)
    if save == "clip":
        scaled = image.clamp(0, 1) * 255
    else:
        one_image = tuple(range(image.ndim))[-3:]
        low, high = image.amin(one_image, keepdim=True), image.amax(one_image, keepdim=True)
        if (low == high).any():
            raise UserError("a constant image cannot be stretched to 0..255; save it with 'clip'")
        scaled = (image - low) * 255 / (high - low)
    return (scaled + 0.5).floor().to(torch.uint8)


def write_image(image: Tensor, path: str | Path, save: str = "clip") -> None:
    """Writes a grey (1, 1, H, W) or RGB (1, 3, H, W) image as 8-bit PNG, JPEG, BMP or TIFF, by the suffix.

    save: the rule of to_uint8. Folders are made as needed; an unfinished write leaves no file. JPEG has
    quality 95 and full colour resolution. Raises UserError for another shape or suffix, where the file cannot
    be written, and as to_uint8 does.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{path}: images are not written as {path.suffix or 'files without suffix'}; use .png"
        )
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3) or 0 in image.shape:
        raise UserError(f"{path}: an image of shape {tuple(image.shape)} was given; write (1, 1 or 3, H, W)")
    pixels = to_uint8(image.detach().cpu(), save)[0].permute(1, 2, 0).squeeze(2).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    with replacing(path) as draft:
        # Pillow ignores quality and subsampling where the format has none.
        picture.save(draft, FORMATS[path.suffix.lower()], quality=95, subsampling=0)
