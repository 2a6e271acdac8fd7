from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import FAMILIES, model, rows, tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from sfa_hf.errors import ConfigError
from sfa_hf.evaluation.answers import cut_at
from sfa_hf.evaluation.generation import StopBefore, continuation, greedy_answers
from sfa_hf.evaluation.live import LiveModel
from sfa_hf.evaluation.prompts import generation_prompts
from sfa_hf.evaluation.untouched import untouched
from sfa_hf.tasks import Encoding

LENGTH = 12


def prompts_of(live: LiveModel, max_length: int = 1024) -> list[list[int]]:
    return generation_prompts("small", rows(), live, Encoding(max_length=max_length), LENGTH)[0]


def answers(live: LiveModel, prompts: Sequence[Sequence[int]], stop: Sequence[str] = ()) -> list[str]:
    with untouched(live.model):
        return greedy_answers(live, prompts, LENGTH, stop)


def greedy_by_hand(net: PreTrainedModel, prompt: Sequence[int], ends: Sequence[int]) -> list[int]:
    """One prompt, no padding, no cache."""
    ids = list(prompt)
    for _ in range(LENGTH):
        with torch.no_grad():
            best = net(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
        if best in ends:
            break
        ids.append(best)
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_answers_equal_those_of_each_prompt_alone(family: str) -> None:
    live = LiveModel(model(family), tokenizer())
    prompts = prompts_of(live)
    expected = [tokenizer().decode(greedy_by_hand(live.model, each, live.end_ids)) for each in prompts]
    assert answers(live, prompts) == expected
    assert len(set(expected)) > len(expected) // 2, "the answers should depend on the prompts"


def test_order_and_batch_size_change_no_answer() -> None:
    live = LiveModel(model(), tokenizer())
    prompts = prompts_of(live)
    together = answers(live, prompts)
    assert answers(live, prompts[::-1])[::-1] == together
    assert [answers(live, [each])[0] for each in prompts] == together


def test_an_answer_ends_at_an_end_token_of_the_tokenizer_or_the_checkpoint() -> None:
    net = model()
    live = LiveModel(net, tokenizer())
    prompts = prompts_of(live)
    free = answers(live, prompts)
    said = Counter(token for each in prompts for token in greedy_by_hand(net, each, [0]))
    frequent = said.most_common(1)[0][0]
    net.generation_config = GenerationConfig(eos_token_id=[frequent])
    expected = [tokenizer().decode(greedy_by_hand(net, each, [0, frequent])) for each in prompts]
    assert answers(LiveModel(net, tokenizer()), prompts) == expected != free


def test_an_answer_ends_before_a_stop_string() -> None:
    live = LiveModel(model(), tokenizer())
    prompts = prompts_of(live)
    free = answers(live, prompts)
    # strings that begin and end inside tokens
    stop = [
        next(text[3:6] for text in free if len(text) > 6),
        next(text[2:4] for text in free[5:] if len(text) > 6),
    ]
    stopped = answers(live, prompts, stop)
    assert stopped == [cut_at(text, stop) for text in free] != free


@pytest.mark.parametrize("stop", ["qzj", "\n\n", "ü~"])
def test_a_stop_string_is_seen_when_its_last_token_is_there_and_not_before(stop: str) -> None:
    said = tokenizer()("Is it? " + stop)["input_ids"]
    criterion = StopBefore([stop], tokenizer(), prompt_length=2)
    places = range(3, len(said) + 3)
    done = [criterion(torch.tensor([[1, 1, *said][:place]]), torch.empty(0)).item() for place in places]
    assert done == [False] * (len(said) - 1) + [True]
    assert len(tokenizer()(stop)["input_ids"]) == len(stop.encode()), "as many tokens as the string can have"


def test_generation_stops_early_once_every_row_has_stopped() -> None:
    live = LiveModel(model(), tokenizer())
    prompt = prompts_of(live)[:1]
    second = answers(live, prompt)[0][1]
    lengths = []
    hook = live.model.register_forward_hook(lambda *_: lengths.append(1))
    answers(live, prompt, [second])
    hook.remove()
    assert len(lengths) < LENGTH


def test_what_a_checkpoint_asks_of_generation_is_set_aside_and_put_back() -> None:
    live = LiveModel(model(), tokenizer())
    plain = answers(live, prompts_of(live))
    wish: dict[str, Any] = {"repetition_penalty": 5.0, "bad_words_ids": [[5]], "min_new_tokens": 9}
    live.model.generation_config = asked = GenerationConfig(do_sample=True, temperature=9.0, **wish)
    assert answers(live, prompts_of(live)) == plain
    assert live.model.generation_config is asked


def test_prompts_leave_the_model_room_to_answer() -> None:
    live = LiveModel(model(), tokenizer())
    long = [replace(row, prompt=row.prompt * 40) for row in rows(3)]
    prompts, cut = generation_prompts("small", long, live, Encoding(max_length=1024), LENGTH)
    assert cut == sum(len(each) == 256 - LENGTH for each in prompts) > 0
    assert prompts_of(live, max_length=8) == [each[-8:] for each in prompts_of(live)]
    with pytest.raises(
        ConfigError, match=r"small\.scoring\.max_new_tokens: is 256, and the model reads 256 tokens"
    ):
        generation_prompts("small", long, live, Encoding(), 256)


def test_a_tokenizer_with_a_pad_token_makes_no_difference(tmp_path: Path) -> None:
    live = LiveModel(model(), tokenizer())
    plain = answers(live, prompts_of(live))
    tokenizer().save_pretrained(tmp_path)
    padding = type(tokenizer()).from_pretrained(tmp_path, pad_token="z", padding_side="right")
    padded = LiveModel(live.model, padding)
    assert padded.pad_id != live.pad_id
    assert answers(padded, prompts_of(padded)) == plain


def test_the_space_that_an_answer_begins_with_stays() -> None:
    """Llama's kind of tokenizer drops the space of the first token it decodes; indented code needs it."""
    words = ["def", "▁", "▁▁▁▁", "▁return", "return", ":", "▁def"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="▁"))
    steps = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]  # Llama 2's own
    backend.decoder = decoders.Sequence(steps)
    llama = PreTrainedTokenizerFast(tokenizer_object=backend)
    colon, indent, returned = 5, 2, 4
    assert llama.decode([indent, returned]) == "   return"
    assert continuation(llama, [0, colon], [indent, returned]) == "    return"
    assert continuation(llama, [0, colon], []) == ""
