"""Objectives as data: named terms, weighed and added."""

import pytest
import torch

from fusionlab.errors import UserError
from fusionlab.losses import weighted_sum

TERMS = {"near": torch.tensor(2.0), "far": torch.tensor(3.0), "lost": torch.tensor(torch.inf)}


def test_terms_are_weighed_by_name() -> None:
    assert weighted_sum(TERMS, {"far": 0.5, "near": 10.0}).item() == 21.5


def test_a_weight_of_zero_leaves_a_term_out_even_an_infinite_one() -> None:
    assert weighted_sum(TERMS, {"near": 1.0, "lost": 0.0}).item() == 2.0


def test_weights_in_one_tensor_get_the_terms_as_their_gradient() -> None:
    terms = {"near": torch.tensor(2.0), "far": torch.tensor(3.0)}
    weights = torch.tensor([0.0, 1.0], requires_grad=True)
    total = weighted_sum(terms, weights)
    total.backward()
    assert total.item() == 3.0
    assert weights.grad is not None
    assert weights.grad.tolist() == [2.0, 3.0]


def test_weights_that_do_not_fit_the_terms_are_refused() -> None:
    with pytest.raises(UserError, match="called colour; choose from near, far, lost"):
        weighted_sum(TERMS, {"near": 1.0, "colour": 1.0})
    with pytest.raises(UserError, match="shape"):
        weighted_sum(TERMS, torch.ones(2))
    with pytest.raises(UserError, match="every weight"):
        weighted_sum(TERMS, {"near": 0.0})
