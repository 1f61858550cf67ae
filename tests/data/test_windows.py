from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data.paired_store import IGNORED, LabelRows
from foretune.data.windows import LABELS, TokenSequence, cut_windows, pieces


def _sequence(length: int, first: int = 1, size: int = 100) -> TokenSequence:
    return TokenSequence(np.arange(1000, 1000 + length, dtype=np.int32), first, size)


def _predicted(windows: object, row: int) -> list[tuple[int, int]]:
    """Return (id, next id) of all places that count."""
    store = windows.store  # type: ignore[attr-defined]
    labels = store.extras[LABELS][store.offsets[row] : store.offsets[row + 1]]
    return [(int(a), int(b)) for a, b in zip(store[row], labels, strict=True) if b != IGNORED]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=5),
    st.integers(2, 12),
    st.data(),
)
def test_every_token_is_predicted_once_from_the_one_before(
    lengths: list[int], longest: int, data: st.DataObject
) -> None:
    firsts = [data.draw(st.integers(1, length - 1)) for length in lengths]
    sequences = [_sequence(length, first) for length, first in zip(lengths, firsts, strict=True)]
    windows = cut_windows(sequences, longest)
    assert windows.store.lengths.max() <= longest
    for number, (length, first) in enumerate(zip(lengths, firsts, strict=True)):
        rows = np.flatnonzero(windows.owner == number)
        found = [pair for row in rows for pair in _predicted(windows, row)]
        assert found == [(1000 + i - 1, 1000 + i) for i in range(first, length)]
        assert windows.sizes[rows].sum() == pytest.approx(100)
        assert (windows.sizes[rows] > 0).all()


def test_a_long_prompt_keeps_its_end_and_is_counted() -> None:
    windows = cut_windows([_sequence(30, first=25)], 10)
    assert windows.store[0].tolist() == list(range(1019, 1029))  # five before what is predicted first
    assert (windows.store.cuts.cut_examples, windows.store.cuts.cut_tokens) == (1, 19)


@pytest.mark.parametrize(
    ("length", "first", "start"),
    [(9, 4, 0), (11, 10, 0), (13, 9, 2), (13, 6, 0), (40, 8, 2)],  # fits, just fits, cut as little as needed
)
def test_prompts_are_cut_no_more_than_needed(length: int, first: int, start: int) -> None:
    windows = cut_windows([_sequence(length, first)], 10)
    assert windows.store[0][0] == 1000 + start
    assert windows.store.cuts.cut_tokens == start


def test_labels_are_padded_with_what_does_not_count() -> None:
    windows = cut_windows([_sequence(3), _sequence(5)], 10)
    labels = LabelRows(windows.store, LABELS)
    assert labels[np.array([0, 1])].tolist() == [
        [1001, 1002, IGNORED, IGNORED], [1001, 1002, 1003, 1004],
    ]  # fmt: skip
    assert len(labels) == 2


@pytest.mark.parametrize(
    "text", ["", "\n\n\n", "a line\n" * 50, "no end " * 40, "字" * 90 + "\n" + "b\r\n" * 9]
)
def test_pieces_joined_are_the_text(text: str) -> None:
    parts = pieces(text, 20)
    assert "".join(parts) == text
    assert all(0 < len(part) < 2 * 20 + 7 for part in parts)


def test_pieces_end_with_lines_where_they_can() -> None:
    assert pieces("12345\n12345\n12345\n", 10) == ["12345\n12345\n", "12345\n"]
