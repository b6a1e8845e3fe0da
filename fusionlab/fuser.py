"""From a method's name to fused images: `load`, `Fuser`, `fuse`, and the reading of weight files."""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from fusionlab import paths
from fusionlab.data.copies import locate
from fusionlab.data.imagefile import read_bytes
from fusionlab.data.pair import to_uint8
from fusionlab.data.registry import choose, datasets
from fusionlab.errors import UserError, require_seed
from fusionlab.machine import free_memory
from fusionlab.methods import METHODS, Found, Method, Released, Shipped, WeightFile
from fusionlab.nets.features import BACKBONES, vgg
from fusionlab.nets.frames import WHOLE, in_tiles


@dataclass(frozen=True)
class Fuser:
    """A method ready to use: (ir, vi) in, fused image out, and where its numbers came from.

    `sha256` is the hash of the weight file, of several the hash of their hashes joined by spaces, "none" for
    a method without weights; official weights go by the hash of our safetensors reading, whichever file they
    came from, so that records agree. `network` is the module or function itself, for looking inside. One
    that is `stochastic` draws its noise from a generator seeded with `seed` anew for each call. One with a
    `reach` (see Method) fuses large frames in tiles.
    """

    name: str
    weights: str
    sha256: str
    network: Callable[..., Tensor]
    stochastic: bool = False
    seed: int = 0
    reach: int | None = None

    def __call__(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) float32 images in [0, 1], 16x16 or larger, into one clipped to [0, 1].

        Raises UserError for other shapes, types or ranges, for images on another device than the weights, and
        where the method's own answer is not finite, or needs more memory than a CPU has to spare.
        """
        return self.unclipped(ir, vi).clamp(0, 1)

    @torch.no_grad()
    def unclipped(self, ir: Tensor, vi: Tensor) -> Tensor:
        """The same before clipping, which is what some released scripts stretch."""
        self._require_images(ir, vi)
        if self.reach is not None and ir[0].numel() > WHOLE:
            return self._whole(in_tiles(self.network, ir, vi, self.reach))
        self._require_memory(ir)
        # On the CPU, so that a seed means the same noise on every device.
        noise = {"generator": torch.Generator().manual_seed(self.seed)} if self.stochastic else {}
        return self._whole(self.network(ir, vi, **noise))

    def _whole(self, fused: Tensor) -> Tensor:
        """Raises UserError for an image that is not finite."""
        if not torch.stack(torch.aminmax(fused)).isfinite().all():  # both are NaN where any value is
            raise UserError(
                f"{self.name} (weights {self.weights}) gave NaN or infinite values on these images; use "
                "other weights"
            )
        return fused

    @property
    def bytes_per_pixel(self) -> int | None:
        """Memory that a pixel of a frame takes, of networks that see it as a whole and say so."""
        return getattr(self.network, "bytes_per_pixel", None)

    def _require_memory(self, ir: Tensor) -> None:
        """On a CPU alone: there a process that takes too much may be killed, a GPU's allocator says so."""
        if self.bytes_per_pixel is None or ir.device.type != "cpu" or ir.numel() <= WHOLE:
            return
        need, there = self.bytes_per_pixel * ir.numel(), free_memory()
        if there is not None and need > there:
            raise UserError(
                f"{self.name} needs about {need / 1e9:.1f} GB of memory for {ir.shape[-1]}x{ir.shape[-2]} "
                f"pixels and {there / 1e9:.1f} GB are free; shrink or cut the images, or take a method that "
                "works in tiles, such as mmdrfuse"
            )

    def _require_images(self, ir: Tensor, vi: Tensor) -> None:
        for role, image in (("infrared", ir), ("visible", vi)):
            if not isinstance(image, Tensor):
                raise UserError(
                    f"the {role} image is {_a_kind(image)}; needed is a float32 tensor (B, 1, H, W)"
                )
            if image.ndim != 4 or image.shape[1] != 1 or min(image.shape[-2:]) < 16:
                raise UserError(
                    f"the {role} image has shape {tuple(image.shape)}; needed is (B, 1, H, W) from 16x16 up"
                )
            _require_values(role, image)
        if ir.shape != vi.shape:
            raise UserError(
                f"infrared {tuple(ir.shape)} and visible {tuple(vi.shape)} differ in shape; "
                "register them first"
            )
        if ir.device != vi.device:
            raise UserError(
                f"the infrared image is on {ir.device}, the visible one on {vi.device}; move one with .to()"
            )
        weight = next(self.network.parameters(), None) if isinstance(self.network, nn.Module) else None
        if weight is not None and weight.device != ir.device:
            raise UserError(
                f"the images are on {ir.device} and {self.name} on {weight.device}; move them with "
                f".to('{weight.device}'), or load it with device='{ir.device}'"
            )


def _a_kind(image: object) -> str:
    """What was given in place of a tensor, and how it becomes one."""
    if type(image).__module__ == "numpy":
        return "a NumPy array, so convert it with torch.from_numpy(...).float()"
    return f"of type {type(image).__name__}"


def _require_values(role: str, image: Tensor) -> None:
    """Raises UserError, with the remedy of each fault, for what is not float32 in [0, 1]."""
    kind = str(image.dtype).removeprefix("torch.")
    if image.dtype == torch.uint8:
        raise UserError(f"the {role} image is uint8, not float32; convert it with .float() / 255")
    if image.dtype != torch.float32:
        raise UserError(
            f"the {role} image is {kind}, not float32; convert it with .float()"
            + ("" if image.is_floating_point() else " and scale it to [0, 1]")
        )
    low, high = (bound.item() for bound in image.aminmax())
    if 0 <= low <= high <= 1:
        return
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise UserError(
            f"the {role} image holds NaN or infinite values; look where they come from, or replace them with "
            "torch.nan_to_num: values must lie in [0, 1]"
        )
    looks_8_bit = low >= 0 and 2 < high <= 255
    remedy = "divide 8-bit values by 255" if looks_8_bit else "scale it, or cut it with .clamp(0, 1)"
    raise UserError(f"the {role} image runs from {low:g} to {high:g}, not within [0, 1]; {remedy}")


def load(name: str, weights: str | Path = "ours", device: str | torch.device = "cpu", seed: int = 0) -> Fuser:
    """A fuser by its name: average, maximum, laplacian, comofusion, mmdrfuse and more (METHODS).

    `weights` is "ours" (shipped), "official" (looked for in FUSIONLAB_WEIGHTS and the cache, its hash
    verified) or a file of the whole network, of safetensors or of a plain PyTorch state dict. `seed` is that
    of the noise which some methods draw. Raises UserError for an unknown name and for weights that are absent
    or do not fit, hold other than finite numbers, or ask for settings that the network does not have.
    """
    require_seed(seed)
    if name not in METHODS:
        raise UserError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    method = METHODS[name]
    module, attribute = method.network.split(".")
    make: Callable[..., Any] = getattr(import_module(f"fusionlab.methods.{module}"), attribute)
    if not method.weights:
        if weights != "ours":
            raise UserError(f"{name} has no weights, so weights={str(weights)!r} means nothing; leave it out")
        return Fuser(name, "no weights", "none", make, method.stochastic, seed, method.reach)
    contents = _contents(name, method, weights)
    files = " and ".join(content.file for content in contents)
    settings = dict(method.settings)
    state: dict[str, Tensor] = {}
    for content in contents:
        settings |= content.settings
        prefix = f"{content.part}." if content.part else ""
        state |= {prefix + key: value for key, value in content.state.items()}
    try:
        if any(content.settings for content in contents):  # of any size: first without memory for it
            with torch.device("meta"):
                _require_fit(make(**settings).state_dict(), state)
        network = make(**settings)
        _require_fit(network.state_dict(), state)
    except (TypeError, UserError) as fault:
        raise UserError(f"{files} does not fit {name}: {fault}") from fault
    network.load_state_dict({key: value.float() for key, value in state.items()})
    if bad := [key for key, value in network.state_dict().items() if not value.isfinite().all()]:
        raise UserError(f"{files} has NaN or infinite weights ({bad[0]}); fetch or train it again")
    hashes = [content.sha256 for content in contents]
    sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    label = str(weights) if weights in ("ours", "official") else Path(weights).name
    label += " (module. taken off its names)" if any(content.wrapped for content in contents) else ""
    if method.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return Fuser(name, label, sha256, network.to(device).eval(), method.stochastic, seed, method.reach)


def _differences(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps weights from filling a network, in one line; "" where nothing does."""
    missing, foreign = (
        [key for key in needed if key not in given],
        [key for key in given if key not in needed],
    )
    other = [key for key in needed if key in given and needed[key].shape != given[key].shape]
    found = []
    if missing:
        found.append(f"{len(missing)} of {len(needed)} tensors are missing ({_some(missing)})")
    if foreign:
        found.append(f"{len(foreign)} are none of its own ({_some(foreign)})")
    if other:
        key = other[0]
        sizes = f"{tuple(given[key].shape)} for {tuple(needed[key].shape)}"
        found.append(f"{len(other)} have another shape ({key} {sizes} first)")
    return ", ".join(found)


def describe(fuser: Fuser) -> str:
    """What was loaded, in one line: method, weights, their hash, and the memory it needs where that grows."""
    if fuser.sha256 == "none":
        return f"{fuser.name} (no weights)"
    cost = fuser.bytes_per_pixel
    need = f", {cost / 1000:.1f} GB of memory a megapixel" if cost else ""
    return f"{fuser.name}, weights {fuser.weights}, sha256 {fuser.sha256[:12]}{need}"


def fuse(fuser: Fuser, ir: Tensor, vi: Tensor, save: str = "clip") -> Tensor:
    """The fused image as it would be written, uint8 (B, 1, H, W).

    `save="clip"` cuts at 0 and 1; `save="stretch"` maps each image's own minimum and maximum to 0 and 255, as
    MMDRFuse's released script does with its unclipped output.
    """
    return to_uint8(fuser.unclipped(ir, vi), save=save)


def _require_fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises UserError, in one line, where weights of a file differ from a network's in more than values."""
    if differences := _differences(wanted, state):
        raise UserError(differences)
    for key, value in state.items():
        if value.is_floating_point() != wanted[key].is_floating_point() or value.is_complex():
            raise UserError(f"{key} holds numbers of type {str(value.dtype).removeprefix('torch.')}")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise UserError(f"{key} is no plain array")


@dataclass(frozen=True)
class _Content:
    """What a weight file holds and which part of the network it fills.

    `wrapped` says that a DataParallel saved it, whose "module." is taken off all names.
    """

    file: str
    part: str
    sha256: str
    state: dict[str, Tensor]
    wrapped: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def _contents(name: str, method: Method, weights: str | Path) -> list[_Content]:
    """What fills a network; a file of one's own stands for all but what is found."""
    if weights in ("ours", "official"):
        if weights not in method.weights:
            raise UserError(
                f"there are no weights of ours for {name} yet; ask for weights='official'"
                if weights == "ours"
                else f"nobody else released {name}, or not where it could be had (data/README.md); leave "
                "weights out, or give a file"
            )
        return [_read(name, file) for file in method.weights[str(weights)]]
    if not Path(weights).exists() or Path(weights).is_dir():
        raise UserError(f"there is no weight file {weights}; give 'ours', 'official' or an existing file")
    found = dict.fromkeys(f for files in method.weights.values() for f in files if isinstance(f, Found))
    return [_read_file(Path(weights)), *(_read(name, file) for file in found)]


def _read(name: str, file: WeightFile) -> _Content:
    match file:
        case Shipped():
            return _read_file(paths.asset(f"weights/{file.name}.safetensors"), file.part)
        case Released():
            return _read_released(name, file)
        case Found():
            backbone = BACKBONES[file.name]
            if paths.find_weights(backbone.file) is None:
                raise UserError(
                    f"{name} needs {backbone.file} ({backbone.origin}), which is not ours to ship: put it "
                    "into a folder that FUSIONLAB_WEIGHTS names"
                )
            return _Content(backbone.file, file.part, backbone.sha256, vgg(file.name).state_dict())


def _read_released(name: str, wanted: Released) -> _Content:
    """Our safetensors reading or the released file itself, whichever is found, by the hash of the reading."""
    forms = [file for file in choose(wanted.dataset) if file.pair == wanted.network]
    path = next((found for file in forms if (found := locate(file))), None)
    if path is None:
        licence = datasets()[wanted.dataset].licence
        raise UserError(
            f"the official weights of {name} are not here (licence: {licence}): run `fusionlab data get "
            f"{wanted.dataset}`, or put {forms[-1].path} into a folder that FUSIONLAB_WEIGHTS names"
        )
    content = _read_file(path, wanted.part)
    if content.sha256 not in {file.sha256 for file in forms}:
        raise UserError(
            f"{path} is not the released file of {name}: its SHA-256 is {content.sha256}; remove it and run "
            f"`fusionlab data get {wanted.dataset}`"
        )
    return replace(content, sha256=forms[0].sha256)


def _read_file(file: Path, part: str = "") -> _Content:
    """A file of safetensors, with what it says of its network's sizes, or a foreign PyTorch checkpoint."""
    content = read_bytes(file, -1)
    sha256 = hashlib.sha256(content).hexdigest()
    if file.suffix != ".safetensors":
        return _Content(str(file), part, sha256, *_unwrapped(_checkpoint(file, content)))
    try:
        state = load_safetensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        settings = json.loads((header.get("__metadata__") or {}).get("settings", "{}"))
        if not isinstance(settings, dict):
            raise ValueError("its settings are no names with values")
    except (SafetensorError, ValueError, KeyError, RecursionError) as fault:
        raise UserError(f"{file} is not a safetensors file ({_line(fault)}); fetch it anew") from fault
    return _Content(str(file), part, sha256, *_unwrapped(state), settings)


def _unwrapped(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The weights under their own names, and whether all were named "module.", as DataParallel saves them."""
    wrapped = bool(state) and all(str(key).startswith("module.") for key in state)
    return ({key.removeprefix("module."): x for key, x in state.items()} if wrapped else state), wrapped


def _checkpoint(file: Path, content: bytes) -> dict[str, Tensor]:
    """The state dict in a PyTorch file, read without running any of its code."""
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                unpacked = sum(part.file_size for part in archive.infolist())
                if unpacked > len(content):  # torch compresses nothing
                    raise UserError(f"{file} unpacks to more than it is; save network.state_dict() alone")
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as fault:  # pickle, zip and torch each have errors of their own
        raise UserError(
            f"{file} is no PyTorch state dict ({type(fault).__name__}); give a safetensors file"
        ) from fault
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        keys = f" ({_line(', '.join(map(str, list(weights)[:5])))})" if isinstance(weights, dict) else ""
        raise UserError(f"{file} holds more than a state dict{keys}; save network.state_dict() alone")
    if other := [key for key in weights if not isinstance(key, str)]:
        raise UserError(
            f"{file} calls a weight {str(other[0])[:80]}, where names are text; it is no state dict"
        )
    return weights


def _some(names: list[str]) -> str:
    """The first few names in one line."""
    few = ", ".join(name[:80] for name in names[:3])
    return ascii(few).strip("'\"") + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _line(fault: object) -> str:
    """What an exception says, in one short line."""
    return " ".join(str(fault).split())[:200]


def find_device(device: str) -> str:
    """The device for "cpu", "cuda" or "auto" (CUDA where it is); raises UserError where CUDA is absent."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("no CUDA device is visible to torch; use --device cpu")
    return "cuda" if available and device != "cpu" else "cpu"
