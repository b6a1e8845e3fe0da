"""A linear probe: what can be read off fixed maps by one 1x1 convolution (Alain and Bengio 2017).

Features that know something give it to a line; what takes a deep network to read off is not in them yet.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_pixels(maps: Sequence[Tensor], rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """The values of maps (1, C_k, H_k, W_k) at N pixels of an image of this size: (N, sum of C_k).

    Coarse maps are read bilinearly, pixel centres being centres of area.
    """
    height, width = size
    where = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=1)
    read = [
        F.grid_sample(each, where.to(each)[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        for each in maps
    ]
    return torch.cat(read, dim=1)


def fit_probe(
    x: Tensor, labels: Tensor, classes: int, decay: float = 1e-3, balanced: bool = True
) -> nn.Linear:
    """Logistic regression of labels (N,) on features (N, C); `balanced` gives each class the same weight.

    Features are brought to mean 0 and deviation 1 first. Convex, so nothing is drawn; L-BFGS on the mean
    cross entropy plus `decay` times the squared weights.
    """
    mean, std = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    line = nn.Linear(x.shape[1], classes, device=x.device)
    for parameter in line.parameters():
        nn.init.zeros_(parameter)
    scaled = (x - mean) / std
    weight = 1 / labels.bincount(minlength=classes).clamp(min=1).to(x) if balanced else None
    optimiser = torch.optim.LBFGS(line.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(line(scaled), labels, weight) + decay * line.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():  # so that it takes features as they are
        line.weight.div_(std)
        line.bias.sub_(line.weight @ mean)
    return line


def mean_recall(scores: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur of the share of their samples that get the highest score.

    scores (N, K), labels (N,). Chance is 1 / K, however rare a class.
    """
    hit = scores.argmax(dim=1) == labels
    return torch.stack([hit[labels == k].double().mean() for k in labels.unique()]).mean().item()


def mean_iou(scores: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur of intersection over union, of scores (N, K) and labels (N,).

    Whoever calls everything by the commonest class gets its share of the samples, divided by the classes.
    """
    found = scores.argmax(dim=1)
    both = [((found == k) & (labels == k)).sum().double() for k in labels.unique()]
    either = [((found == k) | (labels == k)).sum() for k in labels.unique()]
    return torch.stack([a / b for a, b in zip(both, either)]).mean().item()
