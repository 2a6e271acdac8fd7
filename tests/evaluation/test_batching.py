from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.evaluation.batching import length_sorted, padded

lengths = st.lists(st.integers(1, 40), max_size=60)
sequences = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=6)


@given(lengths, st.integers(1, 9))
def test_batches_hold_each_row_once_from_the_longest_to_the_shortest(sizes: list[int], most: int) -> None:
    batches = length_sorted(sizes, most)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(sizes)))
    assert [sizes[index] for index in order] == sorted(sizes, reverse=True)
    assert all(len(batch) == most for batch in batches[:-1])


@given(sequences, st.sampled_from(["left", "right"]))
def test_padding_stands_on_its_side_and_is_masked(rows: list[list[int]], side: str) -> None:
    ids, mask = padded(rows, 0, side, torch.device("cpu"))
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, got, seen in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        gap = [0] * (len(got) - len(row))
        assert got == (gap + row if side == "left" else row + gap)
        assert seen == [int(token > 0) for token in got]
