from __future__ import annotations

import pytest

from sfa_hf.distributed import seed_from


@pytest.mark.parametrize(
    ("key", "seed"),
    [((0, "weight"), 7015109422023132833), (((7, 50), "model.layers.0.bias", 4096), 3164697268198577905)],
)
def test_a_key_has_the_seed_that_saved_weights_were_drawn_with(key: tuple[object, ...], seed: int) -> None:
    assert seed_from(*key) == seed
