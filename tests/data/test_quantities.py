"""Numbers as targets."""

import math

import numpy as np
import pytest

from foretune.data.quantities import quantities
from foretune.errors import DataError


def test_numbers_and_strings():
    found = quantities(["3.5", " -1e2 ", 4, np.float32(0.5), np.int64(7)], "score")
    assert found.dtype == np.float64 and found.tolist() == [3.5, -100.0, 4.0, 0.5, 7.0]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "missing"),
        ("", "missing"),
        (float("nan"), "missing"),
        ("3,5", "with a decimal comma"),
        ("nan", "infinite or not a number"),
        ("inf", "infinite or not a number"),
        (math.inf, "infinite or not a number"),
        ("good", "not a number (row 2): 'good'"),
        ("1_000", "not a number"),
        ("1,000.5", "not a number"),
        (True, "not a number"),
        ([1.0], "not a number"),
    ],
)
def test_faults_name_rows(value, fault):
    with pytest.raises(DataError) as caught:
        quantities([1.0, value, "2"], "score", "dev")
    assert "dev: 1 value of 3 in column 'score'" in str(caught.value)
    assert fault in str(caught.value) and "(row 2)" in str(caught.value)


def test_no_rows():
    with pytest.raises(DataError, match="no rows"):
        quantities([], "score")
