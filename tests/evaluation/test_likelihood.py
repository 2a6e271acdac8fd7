from __future__ import annotations

import copy

import pytest
import torch
from small_models import FAMILIES, model, rows, tokenizer

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.likelihood import Continuation, log_likelihoods, same_read
from sfa_hf.evaluation.live import LiveModel
from sfa_hf.evaluation.prompts import continuations
from sfa_hf.tasks import Encoding, Row, encode


def pairs(live: LiveModel) -> list[Continuation]:
    return continuations("small", rows(), [row.choices for row in rows()], live, Encoding())[0]


def alone(totals: list[list[float]]) -> list[float]:
    return [total for (total,) in totals]


def one_by_one(net: torch.nn.Module, each: Continuation) -> float:
    """Directly from the definition: float64 weights, one row, no padding, all logits."""
    ids = torch.tensor([each.prompt + each.target])
    with torch.no_grad():
        chances = net(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    places = range(len(each.prompt), ids.shape[1])
    return sum(chances[place - 1, ids[0, place]].item() for place in places)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_likelihoods_equal_a_direct_computation_row_by_row(family: str) -> None:
    live = LiveModel(model(family), tokenizer())
    exact = copy.deepcopy(live.model).double()
    batch = pairs(live)
    with torch.no_grad():
        found = alone(log_likelihoods(live, [[each] for each in batch]))
    assert found == pytest.approx([one_by_one(exact, each) for each in batch], abs=2e-5)
    assert len({len(each.target) for each in batch}) > 1


def test_continuations_that_read_the_same_share_a_pass() -> None:
    live = LiveModel(model(), tokenizer())
    prompt, other = [5, 6, 7], [5, 6]
    batch = [
        Continuation(prompt, [8]),
        Continuation(prompt, [9, 10]),
        Continuation(other, [7, 11]),  # another prompt, and yet the same tokens before its last
        Continuation(prompt, [9, 12]),
    ]
    groups = same_read(batch)
    assert groups == [[0, 2], [1, 3]]
    with torch.no_grad():
        found = log_likelihoods(live, [[batch[i] for i in group] for group in groups])
    exact = copy.deepcopy(live.model).double()
    for group, totals in zip(groups, found, strict=True):
        assert totals == pytest.approx([one_by_one(exact, batch[i]) for i in group], abs=2e-5)


def test_low_precision_logits_are_normalised_in_float32() -> None:
    live = LiveModel(model().bfloat16(), tokenizer())
    batch = pairs(live)[:6]
    with torch.no_grad():
        found = alone(log_likelihoods(live, [[each] for each in batch]))
        logits = [live.model(torch.tensor([each.prompt + each.target])).logits[0] for each in batch]
    for total, each, scores in zip(found, batch, logits, strict=True):
        exact = scores.double().log_softmax(-1)[len(each.prompt) - 1 : -1]
        expected = exact.gather(1, torch.tensor(each.target)[:, None]).sum().item()
        assert total == pytest.approx(expected, abs=0.02 * len(each.target))


def test_targets_are_tokenised_as_in_training() -> None:
    live = LiveModel(model(), tokenizer())
    trained, _ = encode(rows(), tokenizer(), Encoding())
    scored = continuations("small", rows(), [[row.target] for row in rows()], live, Encoding())[0]
    end = [tokenizer().eos_token_id]
    assert [each.prompt + each.target + end for each in scored] == list(trained["input_ids"])
    learned = [[label for label in labels if label >= 0] for labels in trained["labels"]]
    assert [each.target + end for each in scored] == learned


def test_long_prompts_lose_their_beginning_and_are_counted() -> None:
    live = LiveModel(model(), tokenizer())
    whole = pairs(live)
    found, cut = continuations(
        "small", rows(), [row.choices for row in rows()], live, Encoding(max_length=20)
    )
    assert [each.target for each in found] == [each.target for each in whole]
    assert all(len(each) <= 20 for each in found)
    assert all(b.prompt[-len(a.prompt) :] == a.prompt for a, b in zip(found, whole, strict=True))
    lost = [len(a.prompt) < len(b.prompt) for a, b in zip(found, whole, strict=True)]
    assert 0 < cut == sum(lost) // 3
    assert lost[::3] == lost[1::3] == lost[2::3]  # a row's choices follow the same prompt


def test_an_empty_prompt_is_conditioned_on_a_token() -> None:
    live = LiveModel(model(), tokenizer())
    found, _ = continuations("small", [Row("", "text")], [["text"]], live, Encoding())
    assert found[0].prompt == [tokenizer().eos_token_id]


def test_a_target_that_the_model_cannot_read_is_refused_not_cut() -> None:
    live = LiveModel(model(), tokenizer())
    with pytest.raises(
        ConfigError, match=r"small.heldout: row 4 has a target of \d+ tokens, and the model reads 256"
    ):
        continuations("small", [Row("p", "z" * 300, index=4)], [["z" * 300]], live, Encoding(max_length=1024))
