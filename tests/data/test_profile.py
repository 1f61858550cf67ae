"""Column profiles: counts, lengths, and what they say about the use of a column."""

import pytest

from foretune.data.profile import profile


def of(values):
    return profile("column", values)


def test_counts_leave_out_blank_values():
    found = of(["a b", None, " ", "c", "c", float("nan")])
    assert (found.rows, found.missing, found.distinct) == (3, 3, 2)


def test_shares_and_length():
    found = of(["two words", "one", 5, "好"])
    assert found.strings == 0.75 and found.prose == pytest.approx(2 / 3)
    assert found.length == (9 + 3 + 1 + 1) / 4


def test_empty_column():
    found = of([None, ""])
    assert (found.rows, found.distinct, found.length, found.prose) == (0, 0, 0.0, 0.0)
    assert not (found.is_textual or found.is_regression or found.is_identifier)


def test_values_that_cannot_be_counted():
    found = of([["a"], ["b"]] * 20)
    assert found.distinct == 0 and not found.is_identifier and not found.is_textual


@pytest.mark.parametrize("values", [[1, 2.0, "3"], ["-1", "1e3"], [0.5]])
def test_numbers(values):
    assert of(values).numeric and not of(values).is_textual


@pytest.mark.parametrize("values", [[True, False], ["1", "a"], ["1,5"], [[1]], []])
def test_not_numbers(values):
    assert not of(values).numeric


@pytest.mark.parametrize(
    ("values", "fractional"), [([1.0, 2.0], False), (["1.0"], False), ([1, 2.5], True), (["2.5", 3], True)]
)
def test_fractions(values, fractional):
    assert of(values).fractional is fractional


@pytest.mark.parametrize(
    ("values", "regression"),
    [
        ([i / 2 for i in range(100)], True),
        ([i + 0.5 for i in range(12)] * 2, False),
        ([i + 0.5 for i in range(21)] * 9, True),
        ([i + 0.5 for i in range(13)] + [0.5] * 8, True),
        ([i / 2 for i in range(10)], False),
        (list(range(100)), False),
    ],
)
def test_regression(values, regression):
    assert of(values).is_regression is regression


@pytest.mark.parametrize(
    ("values", "identifier"),
    [
        (range(20), True),
        (range(19), False),
        ([*range(18), 0, 0], True),
        ([*range(17), 0, 0, 0], False),
        (["a", "b"] * 50, False),
    ],
)
def test_identifier(values, identifier):
    assert of(list(values)).is_identifier is identifier


def test_a_sample_stands_for_a_long_column():
    found = of(["ab", "cd ef"] * 50_000 + ["x"])
    assert found.rows == 100_001 and found.distinct == 3
    assert 3.3 < found.length < 3.7 and 0.4 < found.prose < 0.6
