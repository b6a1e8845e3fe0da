"""Losses shared by the methods; each file one idea."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionlab.errors import UserError


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float] | Tensor) -> Tensor:
    """The sum of weight times term over the weights given: a scalar, of scalar terms.

    Weights by name are added in their order; a weight of 0 leaves its term out, even an infinite one. Weights
    as one tensor (K,), in the order of the K terms, may ask for a gradient, and none is left out. Raises
    UserError for a weight without a term, for a tensor of another length, and where nothing is left to add.
    """
    if isinstance(weights, Tensor):
        if weights.shape != (len(terms),):
            raise UserError(f"weights of shape {tuple(weights.shape)} for the terms {', '.join(terms)}")
        return (weights * torch.stack(list(terms.values()))).sum()
    unknown = [name for name in weights if name not in terms]
    if unknown:
        raise UserError(f"no term of the loss is called {unknown[0]}; choose from {', '.join(terms)}")
    parts = [weight * terms[name] for name, weight in weights.items() if weight != 0]
    if not parts:
        raise UserError(f"every weight of the loss is 0; weigh at least one of {', '.join(terms)}")
    return torch.stack(parts).sum()
