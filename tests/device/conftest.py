"""Lets the tests of this folder import the make-believe device beside them."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from fusionlab import bilevel

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def derivatives_stay_where_they_are(monkeypatch):
    """torch.func makes derivatives below Python, where nobody notes a device: it is that of what varies."""
    from fakecuda import device_of, put

    def noted(transform):
        def transformed(*arguments, **options):
            def call(*inputs):
                results = transform(*arguments, **options)(*inputs)
                device = device_of(next(x for x in tree_leaves(inputs) if isinstance(x, torch.Tensor)))
                return tree_map_only(torch.Tensor, lambda x: put(x, device), results)

            return call

        return transformed

    grad, jvp = bilevel.grad, bilevel.jvp

    def noted_jvp(function, primals, tangents):
        device = device_of(next(x for x in tree_leaves(primals) if isinstance(x, torch.Tensor)))
        results = jvp(function, primals, tangents)
        return tree_map_only(torch.Tensor, lambda x: put(x, device), results)

    monkeypatch.setattr(bilevel, "grad", noted(grad))
    monkeypatch.setattr(bilevel, "jvp", noted_jvp)
