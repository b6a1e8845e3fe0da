"""The methods by name, as data: where each network is, and which files hold its weights.

Nothing here imports torch, so that the command line can name them all; `fusionlab.fuser.load` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shipped:
    """A weight file of ours, `weights/<name>.safetensors`, and the part of the network that it fills.

    A part is the name of a submodule, such as "head"; "" is the whole network.
    """

    name: str
    part: str = ""


@dataclass(frozen=True)
class Released:
    """A network of a registered data set, never shipped: `fusionlab data get DATASET` fetches it."""

    dataset: str
    network: str
    part: str = ""


@dataclass(frozen=True)
class Found:
    """A frozen VGG of others, never shipped: `fusionlab.nets.features.vgg(name)`, from FUSIONLAB_WEIGHTS."""

    name: str
    part: str


WeightFile = Shipped | Released | Found


@dataclass(frozen=True)
class Method:
    """A network and its weights by source, "ours" or "official": the files that fill it together.

    `network` is a class below this package, or, where there are no weights, a function; it gives its
    unclipped image from (ir, vi), and takes a `generator` too where it is `stochastic`. `settings` are the
    arguments of the class; what a weight file says of its own sizes goes before them. `reach` says how far
    away, in pixels, an input can still change an output; None where it is the whole image, so that a large
    frame cannot be fused in parts. `channels_last` lays the channels of a pixel beside each other: that takes
    a third of the time off wide networks and rounds otherwise.
    """

    network: str
    weights: Mapping[str, tuple[WeightFile, ...]] = field(default_factory=dict)
    stochastic: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    reach: int | None = None
    channels_last: bool = False


# Taken where no method is named: best by mean rank over SSIM, VIF and Qabf on RoadScene's validation pairs
# and what is kept of each camera on scenes. `metrics/default` holds the numbers, a test this name to them.
DEFAULT = "laplacian"

METHODS = {
    "average": Method("baselines.average", reach=0),
    "maximum": Method("baselines.maximum", reach=0),
    "laplacian": Method("baselines.laplacian", reach=60),
    "comofusion": Method("comofusion.CoMoFusion", {"ours": (Shipped("comofusion"),)}, channels_last=True),
    "dmfuse": Method("dmfuse.DMFuse", {"ours": (Shipped("dmfuse"),)}, stochastic=True),
    "mmdrfuse": Method(
        "mmdrfuse.Student",
        {"ours": (Shipped("mmdrfuse_student"),), "official": (Released("mmdrfuse", "student"),)},
        reach=2,
    ),
    "mmdrfuse-distilled": Method("mmdrfuse.Student", {"ours": (Shipped("mmdrfuse_distilled"),)}, reach=2),
    "mmdrfuse-teacher": Method(
        "mmdrfuse.Teacher", {"official": (Released("mmdrfuse", "teacher"),)}, reach=26
    ),
    "mmdrfuse-teacher-half": Method(
        "mmdrfuse.Teacher", {"ours": (Shipped("mmdrfuse_teacher_half"),)}, settings={"width": 16}, reach=26
    ),
    "caf": Method("caf.FusionNetwork", {"ours": (Shipped("caf"),)}, reach=6),
}
