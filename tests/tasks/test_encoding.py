from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from sfa_hf.errors import ConfigError
from sfa_hf.models.text import documents
from sfa_hf.models.tokenizer import train_tokenizer
from sfa_hf.tasks import Encoding, Row, collator, encode, prompt_ids, target_ids

FAMILIES = ("pythia", "llama", "qwen")


@functools.cache
def tokenizer(family: str) -> PreTrainedTokenizerFast:
    return train_tokenizer(documents(300, seed=0), family, 400, 128)


words = st.text(alphabet="abc {}0é\n", max_size=30)
rows = st.lists(st.builds(Row, words, words), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FAMILIES), rows, st.integers(2, 40), st.sampled_from(["target", "all"]))
def test_a_target_is_never_cut_and_labels_cover_it(
    family: str, given_rows: list[Row], longest: int, loss: str
) -> None:
    tok, encoding = tokenizer(family), Encoding(max_length=longest, loss_on=loss)
    targets = [ids for ids in target_ids([row.target for row in given_rows], tok) if len(ids) < longest]
    if not targets:
        with pytest.raises(ConfigError, match=r"data\.max_length"):
            encode(given_rows, tok, encoding)
        return
    dataset, report = encode(given_rows, tok, encoding)
    assert (report.rows, report.rows_dropped) == (len(given_rows), len(given_rows) - len(targets))
    for ids, labels, target in zip(dataset["input_ids"], dataset["labels"], targets, strict=True):
        assert len(ids) == len(labels) <= longest
        assert ids[-len(target) :] == target
        assert target[-1] == tok.eos_token_id
        if loss == "target":
            assert labels == [-100] * (len(ids) - len(target)) + target
        else:
            assert labels == ids


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FAMILIES), words, words, st.integers(30, 60))
def test_a_cut_prompt_keeps_its_end_and_is_counted(
    family: str, prompt: str, target: str, longest: int
) -> None:
    tok, encoding = tokenizer(family), Encoding(max_length=longest)
    [whole], [end] = prompt_ids([prompt], tok), target_ids([target], tok)
    if len(end) >= longest:
        return
    dataset, report = encode([Row(prompt, target)], tok, encoding)
    kept = dataset["input_ids"][0][: -len(end)]
    missing = max(0, len(whole) + len(end) - longest)
    assert (report.prompts_cut, report.tokens_cut) == (missing > 0, missing)
    assert len(kept) == len(whole) - missing
    if family == "llama":
        assert kept[0] == tok.bos_token_id
        kept, whole = kept[1:], whole[1:]
    assert not kept or whole[-len(kept) :] == kept
    assert f"{report.prompts_cut} prompts cut" in report.summary()


@pytest.mark.parametrize("family", FAMILIES)
def test_bos_stands_before_the_prompt_as_the_tokenizer_adds_it(family: str) -> None:
    tok = tokenizer(family)
    [ids] = prompt_ids(["a plan"], tok)
    assert (ids[0] == tok.bos_token_id) == (family == "llama")
    assert tok.decode(ids, skip_special_tokens=True) == "a plan"
    assert target_ids(["x"], tok, eos=False)[0] + [tok.eos_token_id] == target_ids(["x"], tok)[0]


def test_an_eos_that_the_tokenizer_adds_does_not_end_the_prompt() -> None:
    tok = train_tokenizer(documents(100, seed=0), "llama", 300, 128)
    ends = [("<s>", tok.bos_token_id), ("</s>", tok.eos_token_id)]
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ends)
    assert tok("a")["input_ids"][-1] == tok.eos_token_id
    [ids] = prompt_ids(["a"], tok)
    assert ids == tok("a")["input_ids"][:-1]


def test_a_chat_template_wraps_the_prompt_once() -> None:
    tok, encoding = tokenizer("qwen"), Encoding(chat_template=True)
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    dataset, _ = encode([Row("hello", "hi")], tok, encoding)
    ids = dataset["input_ids"][0]
    assert tok.decode(ids) == text + "hi<|im_end|>\n"
    assert ids.count(tok.convert_tokens_to_ids("<|im_start|>")) == 2


def test_a_chat_template_that_is_missing_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"data\.chat_template: .*has none"):
        encode([Row("a", "b")], tokenizer("pythia"), Encoding(chat_template=True))


def test_the_collator_pads_on_the_right_and_keeps_the_eos_in_the_loss() -> None:
    tok = tokenizer("qwen")  # pads with its EOS
    dataset, _ = encode([Row("a", "b"), Row("a longer prompt", "c")], tok, Encoding())
    batch = collator(tok)(list(dataset))
    assert tok.pad_token_id == tok.eos_token_id
    for i, row in enumerate(dataset):
        length = len(row["input_ids"])
        assert batch["input_ids"][i, :length].tolist() == row["input_ids"]
        assert batch["labels"][i, :length].tolist() == row["labels"]
        assert batch["labels"][i, length - 1] == tok.eos_token_id
        assert torch.all(batch["labels"][i, length:] == -100)
        assert batch["attention_mask"][i].sum() == length


def test_a_tokenizer_without_pad_or_eos_still_makes_batches() -> None:
    tok = train_tokenizer(documents(100, seed=0), "pythia", 300, 128)
    tok.eos_token = None
    dataset, _ = encode([Row("a", "b"), Row("a longer prompt", "c")], tok, Encoding())
    assert collator(tok)(list(dataset))["input_ids"].shape[0] == 2
