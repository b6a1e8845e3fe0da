"""The fusers, and the one way to get each: `load`."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from fusionlab import paths
from fusionlab.data.pair import to_uint8
from fusionlab.data.registry import File, choose
from fusionlab.data.sources import locate
from fusionlab.errors import UserError
from fusionlab.methods import baselines, comofusion, mmdrfuse

BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": baselines.average,
    "maximum": baselines.maximum,
    "laplacian": baselines.laplacian,
}


@dataclass(frozen=True)
class Recipe:
    """A network and its weights: ours in the project, and the name of the official ones in the registry.

    `network` takes what a weight file says of its sizes, and makes the released size without.
    """

    network: Callable[..., nn.Module]
    ours: str | None
    official: str | None

    @property
    def released(self) -> list[File]:
        """The files that hold the official weights: our safetensors reading, and what was released."""
        return [file for file in choose("mmdrfuse") if file.pair == self.official]


NETWORKS = {
    "comofusion": Recipe(comofusion.CoMoFusion, "weights/comofusion.safetensors", None),
    "mmdrfuse": Recipe(mmdrfuse.Student, "weights/mmdrfuse_student.safetensors", "student"),
    "mmdrfuse-distilled": Recipe(mmdrfuse.Student, "weights/mmdrfuse_distilled.safetensors", None),
    "mmdrfuse-teacher": Recipe(mmdrfuse.Teacher, None, "teacher"),
    "mmdrfuse-teacher-half": Recipe(
        partial(mmdrfuse.Teacher, width=16), "weights/mmdrfuse_teacher_half.safetensors", None
    ),
}
METHODS = (*BASELINES, *NETWORKS)


@dataclass(frozen=True)
class Fuser:
    """A method ready to use: (ir, vi) in, fused image out, and where its numbers came from.

    `sha256` is the hash of the weight file, "none" for a method without weights; official weights go by the
    hash of our safetensors reading, whichever file they came from, so that records agree. `network` is the
    module or function itself, for looking inside.
    """

    name: str
    weights: str
    sha256: str
    network: Callable[[Tensor, Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) float32 images in [0, 1], 16x16 or larger, into one clipped to [0, 1].

        Raises UserError for other shapes, types or ranges.
        """
        _require_images(ir, vi)
        return self.network(ir, vi).clamp(0, 1)

    @torch.no_grad()
    def raw(self, ir: Tensor, vi: Tensor) -> Tensor:
        """The output before clipping, where the method has one; some released scripts stretch that."""
        _require_images(ir, vi)
        return getattr(self.network, "raw", self.network)(ir, vi)


def load(name: str, weights: str | Path = "ours", device: str | torch.device = "cpu") -> Fuser:
    """A fuser by its name: average, maximum, laplacian, comofusion, mmdrfuse and more (METHODS).

    `weights` is "ours" (shipped), "official" (looked for in FUSIONLAB_WEIGHTS and the cache, its hash
    verified) or a file of safetensors or of a plain PyTorch state dict. Raises UserError for an unknown name
    and for weights that are absent or do not fit.
    """
    if name in BASELINES:
        if weights != "ours":
            raise UserError(f"{name} has no weights, so weights={str(weights)!r} means nothing; leave it out")
        return Fuser(name, "no weights", "none", BASELINES[name])
    if name not in NETWORKS:
        raise UserError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    recipe = NETWORKS[name]
    file = _weight_file(name, recipe, weights)
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if weights == "official":
        if sha256 not in {released.sha256 for released in recipe.released}:
            raise UserError(
                f"{file} is not the released file of {name}: its SHA-256 is {sha256}; remove it and run "
                "`fusionlab data get mmdrfuse`"
            )
        sha256 = recipe.released[0].sha256
    try:
        network = recipe.network(**_settings(file, content))
        network.load_state_dict({key: value.float() for key, value in _state_dict(file, content).items()})
    except (RuntimeError, TypeError) as fault:
        raise UserError(f"{file} does not fit {name}: {fault}") from fault
    label = str(weights) if weights in ("ours", "official") else file.name
    return Fuser(name, label, sha256, network.to(device).eval())


def describe(fuser: Fuser) -> str:
    """What was loaded, in one line: method, weights and their hash."""
    if fuser.sha256 == "none":
        return f"{fuser.name} (no weights)"
    return f"{fuser.name}, weights {fuser.weights}, sha256 {fuser.sha256[:12]}"


def fuse(fuser: Fuser, ir: Tensor, vi: Tensor, save: str = "clip") -> Tensor:
    """The fused image as it would be written, uint8 (B, 1, H, W).

    `save="clip"` cuts at 0 and 1; `save="stretch"` maps each image's own minimum and maximum to 0 and 255, as
    MMDRFuse's released script does with its unclipped output.
    """
    return to_uint8(fuser.raw(ir, vi), save=save)


def _require_images(ir: Tensor, vi: Tensor) -> None:
    for role, image in (("infrared", ir), ("visible", vi)):
        if image.ndim != 4 or image.shape[1] != 1 or min(image.shape[-2:]) < 16:
            raise UserError(
                f"the {role} image has shape {tuple(image.shape)}; needed is (B, 1, H, W) from 16x16 up"
            )
        if image.dtype != torch.float32 or not 0 <= image.min() <= image.max() <= 1:
            raise UserError(f"the {role} image is not float32 in [0, 1]; divide 8-bit values by 255")
    if ir.shape != vi.shape:
        raise UserError(
            f"infrared {tuple(ir.shape)} and visible {tuple(vi.shape)} differ in shape; register them first"
        )


def _weight_file(name: str, recipe: Recipe, weights: str | Path) -> Path:
    if weights == "ours":
        if recipe.ours is None:
            raise UserError(f"there are no weights of ours for {name} yet; ask for weights='official'")
        return paths.asset(recipe.ours)
    if weights == "official":
        if recipe.official is None:
            raise UserError(
                f"nobody else released {name}, or not where it could be had (data/README.md); leave weights "
                "out, or give a file"
            )
        for file in recipe.released:
            if found := locate(file):
                return found
        raise UserError(
            f"the official weights of {name} are not here (no licence is stated, so they are not shipped): "
            f"run `fusionlab data get mmdrfuse`, or put {recipe.released[-1].path} into a folder that "
            "FUSIONLAB_WEIGHTS names"
        )
    if not Path(weights).is_file():
        raise UserError(f"there is no weight file {weights}; give 'ours', 'official' or an existing file")
    return Path(weights)


def _state_dict(file: Path, content: bytes) -> dict[str, Tensor]:
    """Reads safetensors, or a foreign PyTorch checkpoint without running any of its code."""
    if file.suffix != ".safetensors":
        try:
            weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as fault:  # pickle, zip and torch each have errors of their own
            raise UserError(
                f"{file} is no PyTorch state dict ({type(fault).__name__}); give a safetensors file"
            ) from fault
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise UserError(f"{file} holds more than a state dict; save network.state_dict() alone")
        return weights
    try:
        return load_safetensors(content)
    except SafetensorError as fault:
        raise UserError(f"{file} is not a safetensors file ({fault}); fetch it anew") from fault


def _settings(file: Path, content: bytes) -> dict[str, object]:
    """What a safetensors file says of the network it belongs to: JSON under "settings", {} without."""
    if file.suffix != ".safetensors":
        return {}
    try:
        length = int.from_bytes(content[:8], "little")
        settings = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["settings"])
    except (ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}
