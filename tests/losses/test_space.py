"""The fifteen losses against closed forms and a slow version, each slip of the released code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fusionlab.bilevel import as_function, finite_difference, parameters_of, single_step
from fusionlab.losses.space import (
    ANCHOR,
    SPACE,
    fusion_loss,
    perception,
    saliency,
    saliency_mask,
    search_terms,
    ssim_term,
)
from fusionlab.methods.caf import FusionNetwork
from fusionlab.nets.features import vgg


def draw(count, seed=0, side=16):
    return torch.rand(count, 2, 1, side, side, generator=torch.Generator().manual_seed(seed)).unbind(1)


def net(width=4):
    torch.manual_seed(0)
    return FusionNetwork(width)


def test_terms_of_flat_images_by_hand():
    """F = .5, ir = .2, vi = .6, M = .25 everywhere; SSIM of flat images is its luminance alone."""
    values = (0.5, 0.2, 0.6, 0.25)
    fused, ir, vi, mask = (torch.full((2, 1, 16, 16), value, dtype=torch.float64) for value in values)

    def taps(image):
        return [image, 2 * image]

    def luminance(a, b):
        return (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)

    wanted = dict.fromkeys(SPACE, 0.0) | {
        "l1_ir": 0.3, "l1_vi": 0.1, "l1_max": 0.1, "l1_masked_ir": 0.075, "l1_masked_vi": 0.075,
        "mse_ir": 0.09, "mse_vi": 0.01, "mse_max": 0.01,
        "ssim_ir": 1 - luminance(0.5, 0.2), "ssim_vi": 1 - luminance(0.5, 0.6),
        "perceptual_ir": 0.3**2 + 0.6**2, "perceptual_vi": 0.1**2 + 0.2**2,
    }  # fmt: skip
    found = search_terms(fused, ir, vi, mask, "paper", taps)
    assert tuple(found) == SPACE and len(SPACE) == 15
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value, abs=1e-9), name
    released = search_terms(fused, ir, vi, mask, "released", taps)
    for name in ("ssim_ir", "ssim_vi"):
        assert released[name].item() == pytest.approx(wanted[name] / 2, abs=1e-9)  # halved
    assert released["perceptual_ir"].item() == pytest.approx(0.1 * (0.3 + 0.6), abs=1e-9)
    assert released["gradient_ir"] > 0.1  # zeros around an image: its border acts as an intensity loss
    assert tuple(search_terms(fused, ir, vi, mask)) == SPACE[:-2]


def test_gradient_terms_are_the_strengths_of_sobel():
    """A step of height 1 in the infrared image alone gives 4 in two of its columns; the others are flat."""
    ir, vi, fused = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    ir[..., 8:] = 1
    terms = search_terms(fused, ir, vi, saliency_mask(ir, vi))
    assert terms["gradient_ir"].item() == pytest.approx(4 * 2 / 16) == terms["gradient_max"].item()
    assert terms["gradient_vi"] == 0


def test_the_released_ssim_is_kornias_by_a_slow_window():
    """Five by five Gaussian windows of sigma 1.5 over a reflected border, pixel by pixel in NumPy."""
    x, y = (image[0, 0].double().numpy() for image in draw(1, side=12))
    line = np.exp(-((np.arange(5) - 2) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    a, b = np.pad(x, 2, mode="reflect"), np.pad(y, 2, mode="reflect")
    total = 0.0
    for i in range(12):
        for j in range(12):
            p, q = a[i : i + 5, j : j + 5], b[i : i + 5, j : j + 5]
            m, n = (window * p).sum(), (window * q).sum()
            u, v, c = ((window * s).sum() - t for s, t in ((p * p, m * m), (q * q, n * n), (p * q, m * n)))
            index = (2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m * m + n * n + 1e-4) * (u + v + 9e-4))
            total += min(max((1 - index) / 2, 0), 1)
    ours = ssim_term(torch.tensor(x)[None, None], torch.tensor(y)[None, None], "released")
    assert ours.item() == pytest.approx(total / 144, rel=1e-9)


def test_saliency_is_the_mean_distance_of_levels():
    image = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
    assert saliency(image).flatten().tolist() == [0, 0, 0, 1]  # 255/4, and for the rare one 3/4 of 255
    image = draw(1, side=6)[0]
    levels = (255 * image).round()
    slow = (levels.view(-1, 1) - levels.view(1, -1)).abs().mean(1)
    slow = (slow - slow.min()) / (slow.max() - slow.min())
    assert torch.allclose(saliency(image).flatten(), slow, atol=1e-5)
    flat = torch.full((1, 1, 2, 2), 0.5)
    assert torch.equal(saliency(flat), torch.zeros(1, 1, 2, 2))
    both = saliency_mask(torch.cat([image, flat.repeat(1, 1, 3, 3)]), torch.cat([image, image]))
    assert torch.allclose(both[0], torch.full((1, 6, 6), 0.5))  # each image by itself
    assert torch.allclose(both[1], (1 - saliency(image)[0]) / 2)


def test_the_anchor_pulls_where_no_weight_does():
    fused, ir, vi = (torch.full((1, 1, 16, 16), value) for value in (0.5, 0.2, 1.0))
    loss = fusion_loss(fused, ir, vi, {"l1_ir": 2.0})  # flat sources: M = 1/2
    assert loss.item() == pytest.approx(2 * 0.3 + ANCHOR * (0.15**2 + 0.25**2), abs=1e-6)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_perception_trains_the_network_unless_detached(variant):
    """The released features are detached: no gradient, yet finite differences see a value that changes."""
    network, (ir, vi) = net(), draw(2)
    taps, call = perception("random", variant), as_function(network)

    def lower(w, beta):
        fused = call(w, ir, vi)
        terms = search_terms(fused, ir, vi, saliency_mask(ir, vi), variant, taps)
        return beta @ torch.stack([terms[name] for name in ("l1_ir", *SPACE[-2:])])

    def upper(w):
        return F.mse_loss(call(w, ir, vi), ir)

    w, beta = parameters_of(network), torch.ones(3)
    _, *exact = single_step(lower, upper, w, beta, 1e-2).tolist()
    _, *apart = single_step(lower, upper, w, beta, 1e-2, finite_difference()).tolist()
    assert all(value != 0 for value in apart)
    assert (exact == [0, 0]) == (variant == "released")


def test_released_features_are_one_convolution_and_its_relu_four_times():
    image, network = draw(1)[0], vgg("random")
    first, *others = perception("random", "released")(image)
    assert first.min() < 0 and len(others) == 4
    assert all(torch.equal(other, first.relu()) for other in others)
    maps = perception("random", "paper")(image)
    assert torch.equal(first.relu(), maps[0]) and len(maps) == len(network.convs)
    assert maps[-1].shape[-1] == 4  # deep
