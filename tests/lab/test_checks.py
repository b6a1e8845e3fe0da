import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.lab import NotSolved, check, grade


def test_a_met_check_prints_name_and_tolerance_but_not_the_difference(capsys):
    check("sigma(t)", torch.tensor([1.0, 2.0 + 5e-7]), np.array([1.0, 2.0]))
    check("loss", 10.0005, 10.0, atol=1e-6, rtol=1e-4)
    assert capsys.readouterr().out == (
        "sigma(t): equal within 1e-06\nloss: equal within 1e-06 + 0.0001 relative\n"
    )


def test_a_failed_check_names_the_largest_difference_and_its_place():
    mine, package = torch.zeros(2, 3), torch.zeros(2, 3)
    mine[0, 1], mine[1, 2] = 0.25, -0.5
    with pytest.raises(AssertionError, match=r"^att: the largest difference is 0\.5 at \[1, 2\] .*33%"):
        check("att", mine, package)
    with pytest.raises(AssertionError, match=r"at \[1\]\['b'\]\[0\]"):
        check("parts", (1.0, {"b": [2.0]}), (1.0, {"b": [3.0]}))


@pytest.mark.parametrize(
    ("mine", "package"),
    [
        (torch.zeros(4), torch.zeros(1, 4)),
        (1.0, torch.zeros(1)),
        (float("nan"), float("nan")),
        (float("inf"), 1.0),
        (1.0, float("inf")),
        (float("inf"), float("-inf")),
        (torch.tensor([1.0, 2.0]), torch.tensor([float("inf"), 2.0])),
        ((1.0, 2.0), (1.0,)),
        ({"a": 1.0}, {"b": 1.0}),
        ([1.0], 1.0),
        ("maximum", "average"),
        ("1.0", 1.0),
        (np.array([0.0, np.nan]), np.array([0.0, 1.0])),
    ],
)
def test_what_is_not_equal(mine, package):
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check("x", mine, package)


def test_a_relative_tolerance_does_not_admit_infinity():
    with pytest.raises(AssertionError, match=r"inf at \[0\]"):
        check("x", torch.tensor([1.0, 2.0]), torch.tensor([float("inf"), 2.0]), rtol=0.1)


def test_infinities_of_one_sign_are_equal():
    check("x", torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 1.0]))


@given(st.floats(-1e3, 1e3), st.floats(-1e-3, 1e-3), st.floats(0, 1e-3), st.floats(0, 1e-4))
def test_check_is_the_written_inequality(value, offset, atol, rtol):
    mine = value + offset
    if abs(mine - value) <= atol + rtol * abs(value):
        check("x", mine, value, atol, rtol)
    else:
        with pytest.raises(AssertionError):
            check("x", mine, value, atol, rtol)


def test_tensors_with_gradient_and_half_precision_are_compared():
    check("w", torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16))


def test_a_result_that_cannot_be_compared_is_refused_by_type():
    with pytest.raises(TypeError, match="object"):
        check("x", object(), 1.0)


@pytest.mark.parametrize("stub", [None, ..., (1.0, ...), [None, 1.0], {"a": ...}, ((1.0, (None,)),)])
def test_a_stub_is_not_solved(stub):
    with pytest.raises(NotSolved, match="^exercise 1$"):
        grade("exercise 1", stub, 1.0)


def test_a_wrong_answer_gives_a_hint_without_the_solution(capsys):
    with pytest.raises(AssertionError) as wrong:
        grade("exercise 2", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.375]))
    assert "0.375 at [1]" in str(wrong.value)
    assert "2.375" not in str(wrong.value)
    grade("exercise 2", (3, "maximum"), (3, "maximum"))
    assert capsys.readouterr().out == "exercise 2: solved\n"
