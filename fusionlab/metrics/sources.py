"""What two pictures of one place look like by themselves, before any fusion."""

import numpy as np
from scipy.ndimage import gaussian_filter, sobel

from fusionlab.data.pair import Pair, to_uint8


def picture_statistics(pair: Pair) -> dict[str, float]:
    """EN (bits), SD and mean (of 255) of 8-bit infrared and visible luminance, and edge correlation.

    Edge correlation is the correlation over pixels of log(1 + gradient magnitude) of the two, by Sobel
    after a Gaussian of 1.5 pixels.
    """
    figures: dict[str, float] = {}
    edges = []
    for role, image in (("ir", pair.ir), ("vi", pair.vi)):
        grey = to_uint8(image)[0, 0].numpy()
        share = np.bincount(grey.ravel(), minlength=256) / grey.size
        share = share[share > 0]
        figures |= {
            f"EN {role}": float(-(share * np.log2(share)).sum()),
            f"SD {role}": float(grey.std()),
            f"mean {role}": float(grey.mean()),
        }
        smooth = gaussian_filter(grey.astype(np.float64), 1.5)
        edges.append(np.log1p(np.hypot(sobel(smooth, 0), sobel(smooth, 1))).ravel())
    return figures | {"edge correlation": float(np.corrcoef(*edges)[0, 1])}
