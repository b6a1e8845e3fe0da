"""What each metric rewards and what fools it, whatever the convention."""

from dataclasses import dataclass
from typing import Literal

from fusionlab.errors import UserError
from fusionlab.metrics import variants
from fusionlab.metrics.conventions import CONVENTIONS
from fusionlab.metrics.variant import Variant

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
        fooled_by="the plain average of the sources; with range 1 or 2 flat noise counts as lost structure",
    ),
    "SF": Metric(
        title="spatial frequency",
        better="higher",
        rewards="steps between neighbouring pixels",
        fooled_by="noise and sharpening; it never looks at the sources",
    ),
    "AG": Metric(
        title="average gradient",
        better="higher",
        rewards="slopes everywhere in the fused image",
        fooled_by="noise and sharpening; it never looks at the sources",
    ),
    "NMI": Metric(
        title="normalised mutual information",
        better="higher",
        rewards="as MI, less dependent on how much entropy the images have",
        fooled_by="copying one source or taking the pixelwise maximum",
    ),
    "SCD": Metric(
        title="sum of the correlations of differences",
        better="higher",
        rewards="what is added to one source looks like the other",
        fooled_by="a clipped sum of the sources, and gain; a copy of one source has no value",
    ),
    "CC": Metric(
        title="correlation coefficient",
        better="higher",
        rewards="grey levels that follow both sources linearly",
        fooled_by="the plain average of the sources; blind to gain and offset",
    ),
    "VIFF": Metric(
        title="visual information fidelity for fusion",
        better="higher",
        rewards="local contrast of that source whose contrast is less amplified, kept or raised",
        fooled_by="local gain of both sources, and sharpening",
    ),
    "MS_SSIM": Metric(
        title="multiscale structural similarity",
        better="higher",
        rewards="the stronger source's contrast and the common pattern in each window, at several scales",
        fooled_by="adding both sources; the fusion form is blind to brightness, the five-scale form is not",
    ),
    "Q": Metric(
        title="Piella's quality index",
        better="higher",
        rewards="similarity to that source which varies more, window by window",
        fooled_by="switching between the sources by variance, seams included",
    ),
    "Qw": Metric(
        title="Piella's weighted quality index",
        better="higher",
        rewards="as Q, but where one source varies much",
        fooled_by="noise in a source, which draws the weight and must be kept",
    ),
    "Qe": Metric(
        title="Piella's edge-dependent quality index",
        better="higher",
        rewards="as Qw, of images and their edge maps at once",
        fooled_by="noise in a source, twice",
    ),
    "Qy": Metric(
        title="Yang's similarity index",
        better="higher",
        rewards="similarity to both sources where they agree, to one of them elsewhere",
        fooled_by="copying one source; flat windows, where rounding decides and values exceed 1",
    ),
    "FMI_pixel": Metric(
        title="feature mutual information, grey levels",
        better="higher",
        rewards="windows of 3 x 3 grey levels that follow those of a source",
        fooled_by="copying one source; tables often print the edge form, twice as high, under this name",
    ),
    "FMI_edge": Metric(
        title="feature mutual information, edges",
        better="higher",
        rewards="edges at the same pixels as in the sources",
        fooled_by="missing edges: windows empty in both images count as full agreement",
    ),
    "FMI_gradient": Metric(
        title="feature mutual information, horizontal derivatives",
        better="higher",
        rewards="horizontal slopes that follow those of a source",
        fooled_by="copying one source; blind to vertical slopes",
    ),
    "FMI_dct": Metric(
        title="feature mutual information, cosine transform",
        better="higher",
        rewards="neighbouring frequencies in the same proportion as in a source",
        fooled_by="copying one source; it never sees where things are",
    ),
    "FMI_wavelet": Metric(
        title="feature mutual information, wavelet bands",
        better="higher",
        rewards="neighbouring wavelet coefficients in the same proportion as in a source",
        fooled_by="copying one source",
    ),
    "PC": Metric(
        title="phase congruency quality",
        better="higher",
        rewards="edges and corners of either source at the same place, whatever their contrast",
        fooled_by="loss of contrast, to which phase is blind",
    ),
    "GMSD": Metric(
        title="gradient magnitude similarity deviation",
        better="lower",
        rewards="gradients changed to the same degree everywhere",
        fooled_by="a loss that is even: gradients halved everywhere score well",
    ),
    "Nabf": Metric(
        title="artefacts made up by fusion",
        better="lower",
        rewards="no edge stronger than in both sources",
        fooled_by="blur and the plain average, which lose edges but make up none",
    ),
    "MSE": Metric(
        title="mean squared error",
        better="lower",
        rewards="grey levels close to both sources at once",
        fooled_by="the plain average of the sources, which is its exact minimum",
    ),
    "PSNR": Metric(
        title="peak signal-to-noise ratio",
        better="higher",
        rewards="grey levels close to both sources at once",
        fooled_by="the plain average of the sources, which is its exact maximum",
    ),
}


# Forms that no convention takes, by their names in `variants`: as released, where ours is repaired.
RELEASED_FORMS = {"Q": "Q_RELEASED", "Qw": "QW_RELEASED", "Qe": "QE_RELEASED"}


def explain(metric: str) -> str:
    """Title, direction, forms by convention, what the metric rewards and what fools it, as lines of text.

    Raises UserError for an unknown metric.
    """
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    about = METRICS[metric]
    users: dict[str, list[str]] = {}
    forms: dict[str, Variant] = {}
    for convention in CONVENTIONS.values():
        if variant := convention.variants.get(metric):
            forms[variant.formula] = variant
            users.setdefault(variant.formula, []).append(convention.name)
    if name := RELEASED_FORMS.get(metric):
        released: Variant = getattr(variants, name)
        forms[released.formula] = released
        users[released.formula] = [f"no convention, but variants.{name}"]
    lines = [f"{metric}: {about.title}; {about.better} is better {about.arrow}"]
    for formula, variant in forms.items():
        lines += [
            f"- {formula}",
            f"  unit {variant.unit}, sides from {variant.side}; {variant.source}",
            f"  in {', '.join(users[formula])}",
        ]
    lines += [f"It rewards {about.rewards}.", f"It is fooled by {about.fooled_by}."]
    return "\n".join(lines)
