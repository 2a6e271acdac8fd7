"""Conversations through chat templates: the template's own rendering is read, the answers are learned.

``pytest tests/tasks/test_chat.py -s`` prints both.
"""
# ruff: noqa: E501 - templates as they are published, one case a line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from sfa_hf.errors import ConfigError
from sfa_hf.models.text import documents
from sfa_hf.models.tokenizer import train_tokenizer
from sfa_hf.tasks import Encoding, Row, encode, load_task
from sfa_hf.tasks.encoding import asked_ids, continued_ids, end_ids

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
QWEN = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' or (message.role == 'system' and not loop.first)"
    " or (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'assistant' %}{{- '<|im_start|>' + message.role }}{%- if message.content %}"
    "{{- '\n' + message.content }}{%- endif %}{%- for tool_call in message.tool_calls %}"
    '{%- set tool_call = tool_call.function %}{{- \'\n<tool_call>\n{"name": "\' }}{{- tool_call.name }}'
    "{{- '\", \"arguments\": ' }}{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}{%- elif message.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' }}"
    "{{- message.content }}{{- '\n</tool_response><|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token}}{% endif %}{% endfor %}"
)
MASKED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{% else %}{{ message.content }}<|im_end|>"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPECIAL += ["<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]

TWO = [
    {"role": "user", "content": "Name a prime."},
    {"role": "assistant", "content": "Seven."},
    {"role": "user", "content": "Another."},
    {"role": "assistant", "content": "Eleven."},
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TOOLS = [
    {"role": "user", "content": "Weather in Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "4 degrees"},
    {"role": "assistant", "content": "4 degrees."},
]
#: Template, and what its answers to TWO look like, with the end of turn that is learned.
TEMPLATES: dict[str, tuple[str, list[str]]] = {
    "ChatML": (CHATML, ["Seven.<|im_end|>", "Eleven.<|im_end|>"]),
    "Llama 2": (LLAMA_2, [" Seven. </s>", " Eleven. </s>"]),
    "Llama 3": (LLAMA_3, ["Seven.<|eot_id|>", "Eleven.<|eot_id|>"]),
    "Gemma": (GEMMA, ["Seven.<end_of_turn>", "Eleven.<end_of_turn>"]),
    "Qwen": (QWEN, ["Seven.<|im_end|>", "Eleven.<|im_end|>"]),
    "Mistral": (MISTRAL, [" Seven.</s>", " Eleven.</s>"]),
    "masked": (MASKED, ["Seven.<|im_end|>", "Eleven.<|im_end|>"]),
}


@pytest.fixture(scope="module")
def plain() -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(documents(200, seed=0), "llama", 400, 512)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    return tokenizer


def with_template(tokenizer: PreTrainedTokenizerFast, template: Any) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = template
    return tokenizer


def row(folder: Path, messages: list[Any], column: str = "messages", **source: Any) -> Row:
    (folder / "x.jsonl").write_text(json.dumps({column: messages}))
    rows = [{"path": "x.jsonl", **source}]
    spec = {"name": "t", "messages": column, "train": rows, "heldout": rows, "scoring": {"kind": "generate"}}
    return load_task(spec, data_dir=folder).heldout_rows()[0]


def learned(ids: list[int], labels: list[int]) -> list[list[int]]:
    """The runs of learned tokens."""
    runs: list[list[int]] = []
    for place, label in enumerate(labels):
        assert label in (-100, ids[place])
        if label != -100:
            if place == 0 or labels[place - 1] == -100:
                runs.append([])
            runs[-1].append(label)
    return runs


@pytest.mark.parametrize("name", TEMPLATES)
def test_tokens_are_the_template_s_and_answers_are_learned(
    name: str, plain: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    template, answers = TEMPLATES[name]
    tok = with_template(plain, template)
    own = tok.apply_chat_template(TWO, return_dict=True)["input_ids"]
    for loss_on, wanted in {"assistant": answers, "last": answers[1:], "target": answers[1:]}.items():
        dataset, _ = encode([row(tmp_path, TWO)], tok, Encoding(loss_on=loss_on))  # type: ignore[arg-type]
        ids, labels = dataset["input_ids"][0], dataset["labels"][0]
        assert ids == own
        found = [tok.decode(run) for run in learned(ids, labels)]
        print(f"{name}, {loss_on}: {tok.decode(own)!r} -> {found}")
        assert found == wanted
        assert end_ids([row(tmp_path, TWO)], tok, Encoding()) == [
            ids[labels.index(learned(ids, labels)[-1][-1])]
        ]
    dataset, _ = encode([row(tmp_path, TWO)], tok, Encoding(loss_on="all"))
    assert dataset["labels"][0] == own


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_is_asked_as_it_is_trained(
    name: str, plain: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tok = with_template(plain, TEMPLATES[name][0])
    dataset, _ = encode([row(tmp_path, TWO)], tok, Encoding())
    ids = dataset["input_ids"][0]
    start = next(place for place, label in enumerate(dataset["labels"][0]) if label != -100)
    assert asked_ids([row(tmp_path, TWO)], tok, Encoding()) == [ids[:start]]
    [[(prompt, right), (same, wrong)]] = continued_ids(
        [row(tmp_path, TWO)], [["Eleven.", " Twelve."]], tok, Encoding()
    )
    assert prompt == same == ids[:start]
    assert ids[start : start + len(right)] == right
    assert tok.decode(wrong).strip() == "Twelve."
    assert tok.decode(wrong).startswith(" ") == (name in ("Llama 2", "Mistral"))


def test_a_prompt_and_its_target_are_one_turn_each(plain: PreTrainedTokenizerFast) -> None:
    tok, encoding = with_template(plain, CHATML), Encoding(chat_template=True)
    given = Row("Is it so?", " Yes")
    dataset, _ = encode([given], tok, encoding)
    assert tok.decode(dataset["input_ids"][0]).endswith("assistant\nYes<|im_end|>\n")
    [[(_, yes), (_, no)]] = continued_ids([given], [[" Yes", " No"]], tok, encoding)
    assert [tok.decode(yes), tok.decode(no)] == ["Yes", "No"]


def test_sharegpt_s_form_and_systems_are_read(plain: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tok = with_template(plain, QWEN)
    shared = [{"from": "system", "value": "One word."}, {"from": "human", "value": "Snow?"}]
    shared += [{"from": "gpt", "value": "White."}, {"from": "human", "value": "No answer yet"}]
    found = row(tmp_path, shared, "conversations")
    assert (found.prompt, found.target) == ("system: One word.\nuser: Snow?", "White.")
    dataset, _ = encode([found], tok, Encoding())
    text = "<|im_start|>system\nOne word.<|im_end|>\n<|im_start|>user\nSnow?<|im_end|>\n"
    assert tok.decode(dataset["input_ids"][0]) == text + "<|im_start|>assistant\nWhite.<|im_end|>\n"


def test_calls_of_tools_are_learned_and_null_is_no_text(
    plain: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    dataset, _ = encode([row(tmp_path, TOOLS)], with_template(plain, QWEN), Encoding(loss_on="assistant"))
    found = [plain.decode(run) for run in learned(dataset["input_ids"][0], dataset["labels"][0])]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
    assert found == [call, "4 degrees.<|im_end|>"]
    dataset, _ = encode([row(tmp_path, TOOLS)], with_template(plain, CHATML), Encoding(loss_on="assistant"))
    assert "None" not in plain.decode(dataset["input_ids"][0])


def test_a_date_is_the_same_in_every_launch(plain: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tok = with_template(plain, "{{ strftime_now('%d %b %Y') }}\n" + CHATML)
    [ids] = asked_ids([row(tmp_path, TWO)], tok, Encoding(date="2031-05-04"))
    assert tok.decode(ids).startswith("04 May 2031\n")


def test_a_conversation_that_is_too_long_keeps_its_last_answer(
    plain: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tok = with_template(plain, LLAMA_3)
    dataset, report = encode([row(tmp_path, TWO)], tok, Encoding(max_length=30, loss_on="assistant"))
    assert (report.prompts_cut, len(dataset["input_ids"][0]), dataset["input_ids"][0][0]) == (1, 30, 1)
    assert tok.decode(learned(dataset["input_ids"][0], dataset["labels"][0])[-1]) == "Eleven.<|eot_id|>"


SYSTEM = [{"role": "system", "content": "x"}, *TWO]
FAILS: dict[str, tuple[Any, list[Any], str]] = {
    "no template": (None, TWO, "data.chat_template: the tokenizer of .* has none"),
    "no default": ({"tool_use": CHATML, "rag": CHATML}, TWO, r"has several templates \(rag, tool_use\) and no default"),
    "a template that refuses": (GEMMA, SYSTEM, "fails on a conversation of system, .*: System role not supported"),
    "a template that is broken": ("{{ messages", TWO, "the tokenizer's template fails on .*: unexpected end of template"),
    "a text without end": ("{{ 'x' * 3000000000 }}", TWO, "needs more than 400 MiB"),
    "a long text": (CHATML + "{{ 'x' * 5000000 }}", TWO, "writes \\d+ characters of its own .*at most 1048576"),
    "a long template": ("x" * 200_000, TWO, "has 200000 characters .*at most 100000"),
    "a mask without end": (MASKED + "{{ 'x' * 3000000000 }}", TWO, "needs more than 400 MiB"),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", TWO, "is nested too deep"),
    "attributes of classes": ("{{ messages.__class__.__mro__ }}", TWO, "is unsafe"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILS)
def test_a_template_that_fails_is_one_line(case: str, plain: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    template, messages, line = FAILS[case]
    tok = with_template(plain, template)
    for use in (encode, asked_ids):
        with pytest.raises(ConfigError, match=line) as caught:
            use([row(tmp_path, messages)], tok, Encoding())  # type: ignore[operator]
        assert "\n" not in str(caught.value)


def test_an_endless_template_is_stopped_and_the_next_one_works(
    plain: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    given = [row(tmp_path, TWO)]
    endless = "{% for a in range(9 ** 5) %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(ConfigError, match="takes more than 2 seconds"):
        asked_ids(given, with_template(plain, endless), Encoding())
    assert asked_ids(given, with_template(plain, CHATML), Encoding())


BAD: dict[str, tuple[Any, str]] = {
    "text": ("hello", "'messages' is no list of messages"),
    "no answer": (TWO[:1], "has no answer of the assistant"),
    "an answer to nothing": (TWO[1:2], "has no answer of the assistant to something"),
    "null content": ([{"role": "user", "content": None}, TWO[1]], "message 1 has null content, and calls no tool"),
    "another role": ([{"from": "narrator", "value": "x"}, TWO[1]], "message 1 is from 'narrator', not system"),
    "an image": ([{"role": "user", "content": [{"type": "image"}]}, TWO[1]], "message 1 has content that is not text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_conversation_that_is_none_is_named_by_its_row(case: str, tmp_path: Path) -> None:
    messages, line = BAD[case]
    with pytest.raises(ConfigError, match=rf"t\.heldout\.0\.messages: x\.jsonl row 1: .*{line}"):
        row(tmp_path, messages)


def test_a_task_has_prompts_or_conversations(tmp_path: Path) -> None:
    rows = [{"path": "x.jsonl"}]
    spec: dict[str, Any] = {"name": "t", "heldout": rows, "scoring": {"kind": "generate"}}
    for change, line in (
        ({}, "needs prompt and target, or messages"),
        ({"messages": "m", "prompt": "x"}, "messages stands instead of prompt and target"),
        ({"messages": "m", "few_shot": {"count": 1}}, "conversations have none"),
    ):
        with pytest.raises(ConfigError, match=line):
            load_task({**spec, **change}, data_dir=tmp_path)
