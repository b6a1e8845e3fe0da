"""What each metric rewards and what fools it, whatever the convention."""

from dataclasses import dataclass
from typing import Literal

ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Metric:
    """A metric in words. Unit and smallest side belong to the variant (`conventions.Variant`)."""

    title: str
    better: Literal["higher", "lower"]
    rewards: str
    fooled_by: str

    @property
    def arrow(self) -> str:
        """The direction of better values, as tables print it."""
        return ARROWS[self.better]


METRICS: dict[str, Metric] = {
    "EN": Metric(
        title="entropy",
        better="higher",
        rewards="many grey levels in equal use",
        fooled_by="noise, and any stretch of the histogram that splits levels; it never looks at the sources",
    ),
    "SD": Metric(
        title="standard deviation",
        better="higher",
        rewards="global contrast",
        fooled_by="a min-max stretch before saving, and noise",
    ),
    "MI": Metric(
        title="mutual information",
        better="higher",
        rewards="grey levels of a source that predict those of the fused image, in any assignment",
        fooled_by="copying one source or taking the pixelwise maximum; blind to where pixels lie",
    ),
    "VIF": Metric(
        title="visual information fidelity, pixel domain",
        better="higher",
        rewards="each source's local contrast kept or raised, free of other detail, at four scales",
        fooled_by="copying one source, and local gain: contrast above the source's scores above 1",
    ),
    "Qabf": Metric(
        title="gradient-based fusion quality",
        better="higher",
        rewards="strength and angle of the sources' edges found again in the fused image",
        fooled_by="copying the source with the stronger edges; the padded rim scores on a flat image too",
    ),
    "SSIM": Metric(
        title="structural similarity",
        better="higher",
        rewards="local mean, contrast and pattern close to both sources at once",
        fooled_by="the plain average of the sources; with range 2 a dark offset counts as lost structure",
    ),
}
