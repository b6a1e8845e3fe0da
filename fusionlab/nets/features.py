"""Networks trained on photographs, as measures of likeness: LPIPS on SqueezeNet, and maps of VGG-19.

Their weights are others' and never shipped: FUSIONLAB_WEIGHTS names the folders in which they are looked for,
data/README.md says where they come from. All take (B, 1, H, W) or (B, 3, H, W) in [0, 1]; grey becomes three
equal channels. Every network here is frozen.
"""

import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from fusionlab.data.imagefile import read_bytes
from fusionlab.errors import UserError
from fusionlab.paths import find_weights


@dataclass(frozen=True)
class Backbone:
    """A weight file of others and what it was made from: safetensors in half precision, or torchvision's own.

    sha256: the hash of the file, or its first digits where its authors give no more.
    """

    file: str
    sha256: str
    origin: str


BACKBONES = {
    "squeezenet": Backbone(
        "squeezenet1_1_fp16.safetensors",
        "2fa28293b9aea067ed2994fbfc5e8015aa02771c43c2db8d60819b92062e1f6b",
        "torchvision's SqueezeNet 1.1, from zchrissirhcz/squeezenet-ncnn-pnnx-opencv-cpp @0392c1c",
    ),
    "vgg19_normalised": Backbone(
        "vgg19_normalised_relu3_1_fp16.safetensors",
        "e249749fbd57b4a73a1dbbf4599cb8b7c74343618cab4864315662d6bb231fd9",
        "VGG-19 with activations scaled to a mean of 1, from pietrocarbo/deep-transfer @e87e72f",
    ),
    "vgg19_small16x": Backbone(
        "vgg19_small16x_relu5_1_fp16.safetensors",
        "8906d54993c95574d95ba4dd92ba1074bc5fee2ec899c4948fd5fbd960ee375f",
        "a distilled VGG-19, from MingSun-Tse/Collaborative-Distillation @4a269dc",
    ),
    "vgg19": Backbone(
        "vgg19-dcbb9e9d.pth",
        "dcbb9e9d",
        "torchvision's VGG-19, which torchvision.models.vgg19(weights='IMAGENET1K_V1') downloads",
    ),
}


# Before these VGG-19 halves its maps.
GROUPS = ("conv2_1", "conv3_1", "conv4_1", "conv5_1")
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, BT.601


def three_channels(image: Tensor) -> Tensor:
    """Grey (B, 1, H, W) as three equal channels; colour as it is."""
    return image.expand(-1, 3, -1, -1)


class SqueezeNet(nn.Module):
    """The convolutions of SqueezeNet 1.1 (Iandola et al. 2016), keyed as torchvision's."""

    TAPS = (1, 4, 7, 9, 10, 11, 12)  # where LPIPS listens

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.ModuleList(
            [
                *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool),
                *(Fire(64, 16, 64), Fire(128, 16, 64), pool),
                *(Fire(128, 32, 128), Fire(256, 32, 128), pool),
                *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Seven maps of 64, 128, 256, 384, 384, 512 and 512 channels from (B, 3, H, W), 17x17 or larger."""
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.TAPS:
                maps.append(x)
        return maps


class Fire(nn.Module):
    """A narrow 1x1 convolution, then 1x1 and 3x3 ones side by side."""

    def __init__(self, width: int, narrow: int, half: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, half, 1)
        self.expand3x3 = nn.Conv2d(narrow, half, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class Lpips(nn.Module):
    """LPIPS 0.1 with SqueezeNet (Zhang et al. 2018): how unlike two images look; 0 for equal ones.

    Needs the backbone and the installed lpips package, of which it reads the linear heads without importing
    it. Raises UserError where either is missing or altered.
    """

    def __init__(self) -> None:
        super().__init__()
        weights = read_backbone("squeezenet")
        self.backbone = SqueezeNet()
        self.backbone.load_state_dict({k: v for k, v in weights.items() if k.startswith("features.")})
        for index, head in enumerate(read_heads()):
            self.register_buffer(f"head{index}", head)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """One distance a pair of images in [0, 1]: (B,). Differentiable in both."""
        both = 2 * three_channels(torch.cat([x, y])) - 1
        total = torch.zeros(len(x), device=x.device)
        for index, maps in enumerate(self.backbone((both - self.shift) / self.scale)):
            a, b = (maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)).chunk(2)
            total = total + F.conv2d((a - b).square(), self.get_buffer(f"head{index}")).mean(dim=(1, 2, 3))
        return total


def read_heads() -> list[Tensor]:
    """The seven linear heads of LPIPS on SqueezeNet, (1, C, 1, 1) each, from the installed lpips package."""
    try:
        files = metadata.files("lpips") or []
    except metadata.PackageNotFoundError as error:
        raise UserError(
            "the heads of LPIPS come with the package lpips: pip install --no-deps lpips; or choose another "
            "distance by name, such as pseudo_huber"
        ) from error
    found = [file for file in files if file.as_posix().endswith("weights/v0.1/squeeze.pth")]
    if not found:
        raise UserError("the installed lpips has no weights/v0.1/squeeze.pth; install version 0.1.4")
    heads = torch.load(found[0].locate(), map_location="cpu", weights_only=True)  # saved from a GPU
    return [heads[f"lin{index}.model.1.weight"] for index in range(len(SqueezeNet.TAPS))]


class Vgg(nn.Module):
    """The convolutions of a VGG-19 up to some depth, each map after its ReLU.

    `widths`: layer -> channels, in order, such as {"conv1_1": 64, "conv1_2": 64}; maps are halved before each
    new group. `heads`: layer -> channels of a 1x1 convolution whose output stands for that layer's map.
    `label` names the weights for captions and records. Borders are reflected and the 1x1 `conv0` prepares the
    colours; `grey` has neither: one channel from -1 to 1 goes into the first convolution, with zeros around.
    """

    def __init__(
        self,
        label: str,
        widths: Mapping[str, int],
        heads: Mapping[str, int] | None = None,
        grey: bool = False,
    ) -> None:
        super().__init__()
        self.label, self.grey = label, grey
        self.conv0 = nn.Identity() if grey else nn.Conv2d(3, 3, 1)
        inputs = [1 if grey else 3, *widths.values()]
        self.convs = nn.ModuleDict({k: nn.Conv2d(i, o, 3) for (k, o), i in zip(widths.items(), inputs)})
        self.heads = nn.ModuleDict({k: nn.Conv2d(widths[k], o, 1) for k, o in (heads or {}).items()})

    def forward(self, image: Tensor, halved_before: Collection[str] = GROUPS) -> dict[str, Tensor]:
        """All maps in one pass, {"relu1_1": (B, 64, H, W), ...}; with heads, those of the heads alone.

        Before the layers `halved_before` a 2x2 maximum halves the maps; CoCoNet adds one to VGG's four.
        """
        x = 2 * image - 1 if self.grey else self.conv0(three_channels(image))
        maps = {}
        for name, convolution in self.convs.items():
            if name in halved_before:
                x = F.max_pool2d(x, 2)
            x = F.pad(x, (1, 1, 1, 1), mode="constant" if self.grey else "reflect")
            x = F.relu(convolution(x))
            if not self.heads:
                maps[name.replace("conv", "relu")] = x
            elif name in self.heads:
                maps[name.replace("conv", "relu")] = F.relu(self.heads[name](x))
        return maps


TO_RELU3_1 = {"conv1_1": 64, "conv1_2": 64, "conv2_1": 128, "conv2_2": 128, "conv3_1": 256}
TO_RELU3_4 = TO_RELU3_1 | {f"conv3_{i}": 256 for i in (2, 3, 4)}
TO_RELU5_1 = TO_RELU3_4 | {f"conv4_{i}": 512 for i in (1, 2, 3, 4)} | {"conv5_1": 512}
SMALL_WIDTHS = {
    **{"conv1_1": 16, "conv1_2": 16, "conv2_1": 32, "conv2_2": 32},
    **{f"conv3_{i}": 64 for i in (1, 2, 3, 4)},
    **{f"conv4_{i}": 128 for i in (1, 2, 3, 4)},
    "conv5_1": 128,
}
SMALL_HEADS = {"conv1_1": 64, "conv2_1": 128, "conv3_1": 256, "conv4_1": 512, "conv5_1": 512}


def vgg(name: str, seed: int = 0, widths: Mapping[str, int] = TO_RELU5_1) -> Vgg:
    """A frozen VGG by name; raises UserError for another one and where its file is missing or altered.

    "vgg19_normalised" is the true network, relu1_1 to relu3_1. "vgg19_small16x" imitates five of its maps,
    relu1_1, 2_1, 3_1, 4_1 and 5_1. "vgg19" is torchvision's as CoCoNet uses it, of grey images from -1 to 1,
    as deep as `widths` say: TO_RELU3_4 or TO_RELU5_1. "random" (from the seed) needs no file and is no
    measure of perception: it ranks images as plain pixel distance does. On the meta device, where one
    counts, no file is read.
    """
    if name not in (*BACKBONES, "random") or name == "squeezenet":
        raise UserError(f"there is no VGG {name!r}; use vgg19, vgg19_normalised, vgg19_small16x or random")
    if name == "vgg19":
        network = Vgg(name, widths, grey=True)
    elif name == "vgg19_small16x":
        network = Vgg(name, SMALL_WIDTHS, SMALL_HEADS)
    else:
        network = Vgg(f"random VGG, seed {seed}" if name == "random" else name, TO_RELU3_1)
    network.requires_grad_(False)
    if network.convs["conv1_1"].weight.is_meta:
        return network
    if name == "random":
        _draw(network, seed)
    elif name == "vgg19":
        network.load_state_dict(_grey_weights(read_backbone(name), widths))
    else:
        network.load_state_dict({_own_key(key): value for key, value in read_backbone(name).items()})
    return network


def _draw(network: Vgg, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if key.endswith("bias"):
            value.zero_()
        elif key == "conv0.weight":
            value.copy_(torch.eye(3)[..., None, None])
        else:
            nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)


def _grey_weights(theirs: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """torchvision's features.0, .2, .5 ... as ours; the first layer's colours are weighed as in luminance."""
    numbers = sorted(
        int(key.split(".")[1]) for key in theirs if key.startswith("features.") and "weight" in key
    )
    weights = {
        f"convs.{name}.{part}": theirs[f"features.{number}.{part}"]
        for name, number in zip(widths, numbers)
        for part in ("weight", "bias")
    }
    first = weights["convs.conv1_1.weight"]
    weights["convs.conv1_1.weight"] = torch.einsum("ochw,c->ohw", first, torch.tensor(LUMINANCE))[:, None]
    return weights


def _own_key(key: str) -> str:
    """conv2_1.weight -> convs.conv2_1.weight, conv2_1.aux.weight -> heads.conv2_1.weight."""
    if key.startswith("conv0"):
        return key
    return f"heads.{key.replace('.aux', '')}" if ".aux" in key else f"convs.{key}"


def read_backbone(name: str) -> dict[str, Tensor]:
    """The weights of a backbone in float32; raises UserError where its file is absent or altered."""
    backbone = BACKBONES[name]
    path = find_weights(backbone.file)
    if path is None:
        raise UserError(
            f"{backbone.file} is not here ({backbone.origin}; not ours to ship): put it into a folder that "
            "FUSIONLAB_WEIGHTS names, or choose another distance by name"
        )
    content = read_bytes(path, limit=2**32)
    if not hashlib.sha256(content).hexdigest().startswith(backbone.sha256):
        raise UserError(f"{path} is not the file it should be (SHA-256 differs); replace it")
    if path.suffix == ".pth":
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {key: value.float() for key, value in load(content).items()}
