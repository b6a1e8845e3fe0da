"""Scenes of 256x256 a CPU second, beside a plain peer that only filters arrays of that size."""

import numpy as np
from scipy.ndimage import gaussian_filter

from fusionlab.scenes import open_scenes


def test_a_scene_costs_as_much_as_thirty_blurs(cpu_seconds):
    pairs = open_scenes(24, seed=0, height=256, width=256)
    image = np.random.default_rng(0).uniform(size=(256, 256, 3)).astype(np.float32)
    pairs[0]  # draws the textures, once a process
    drawn = cpu_seconds(lambda: [pairs[k] for k in range(len(pairs))], 3) / len(pairs)
    which = cpu_seconds(lambda: pairs[0].truth.both, 3) - cpu_seconds(lambda: pairs[0], 3)
    blurred = cpu_seconds(lambda: [gaussian_filter(image, (2, 2, 0)) for _ in range(20)], 3) / 20
    print(f"\n{1 / drawn:.1f} scenes of 256x256 a CPU second, {1000 * drawn:.0f} ms each")
    print(f"{1000 * which:.0f} ms more for Truth.both; a blur of that size takes {1000 * blurred:.1f} ms")
    assert drawn < 30 * blurred
