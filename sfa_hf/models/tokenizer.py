"""Byte-level BPE tokenizers trained on generated text, with the special tokens of each family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class _Special:
    """Special tokens of a family; they differ between families as those of the real models do."""

    eos: str
    bos: str | None = None
    pad: str | None = None
    adds_bos: bool = False
    chat_template: str | None = None
    others: tuple[str, ...] = ()


_SPECIAL = {
    "pythia": _Special(eos="<|endoftext|>", bos="<|endoftext|>"),
    "llama": _Special(eos="</s>", bos="<s>", adds_bos=True),
    "qwen": _Special(
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        chat_template=_CHATML,
        others=("<|im_start|>", "<|im_end|>"),
    ),
}


def train_tokenizer(
    texts: Sequence[str], family: str, vocabulary: int, longest: int
) -> PreTrainedTokenizerFast:
    """Train byte-level BPE on ``texts``; every digit is its own token.

    Args:
        texts: the corpus.
        family: "pythia", "llama" or "qwen"; determines the special tokens.
        vocabulary: number of tokens, with special tokens.
        longest: ``model_max_length`` of the tokenizer, in tokens.
    """
    special = _SPECIAL[family]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    named = [token for token in (special.eos, special.bos, special.pad, *special.others) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(dict.fromkeys(named)),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if special.adds_bos and special.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{special.bos} $A", special_tokens=[(special.bos, tokenizer.token_to_id(special.bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special.eos,
        bos_token=special.bos,
        pad_token=special.pad,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = special.chat_template
    return fast
