"""The cost of linearised fine-tuning relative to ordinary: seconds per step, peak memory, generation.

    python benchmarks/linearised.py [--million 10] [--batch 4] [--tokens 128] [--repeats 7]

A Llama of about that many million weights with AdamW, whole and with LoRA adapters of rank 8. The set-ups
take their steps in turn, so that other work on the machine affects all of them. Prints medians and their
ratio to ordinary fine-tuning. Peak memory is that of one step, above what the set-up holds between steps.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from sfa_hf.linearised import linearise

MIB = 2**20
NEW_TOKENS = 16
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Step:
    """One set-up: a model, its optimizer, and a step of it."""

    def __init__(self, name: str, model: nn.Module, batch: dict[str, Tensor]) -> None:
        self.name, self.model, self.batch = name, model.to(DEVICE).train(), batch
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
        self.seconds: list[float] = []
        self.generation: list[float] = []
        self.peak = 0

    def __call__(self) -> None:
        self.model(**self.batch).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def generate(self) -> None:
        self.model.eval()
        ids = self.batch["input_ids"][:, :32]
        self.model.generate(input_ids=ids, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        self.model.train()


def llama(million: float, attention: str) -> LlamaForCausalLM:
    """8 blocks of 12 h^2 weights and two embeddings of 4000 h; h in heads of 32."""
    width = 32 * max(2, round((((8000**2 + 4 * 96 * million * 1e6) ** 0.5 - 8000) / 192) / 32))
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=8,
        num_attention_heads=width // 32,
        vocab_size=4000,
        attn_implementation=attention,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def with_lora(model: nn.Module) -> Any:
    return peft.get_peft_model(
        model, peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def setups(million: float, batch: dict[str, Tensor]) -> list[list[Step]]:
    """The first of each list is what the others are compared with."""
    wholes = [
        Step("fine-tuning, sdpa", llama(million, "sdpa"), batch),
        Step("fine-tuning, eager", llama(million, "eager"), batch),
        Step("linearised", linearise(llama(million, "eager")), batch),
    ]
    adapters = [
        Step("LoRA, sdpa", with_lora(llama(million, "sdpa")), batch),
        Step("LoRA, linearised", linearise(with_lora(llama(million, "eager"))), batch),
    ]
    return [wholes, adapters]


def timed(act: Callable[[], None]) -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    act()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def peak_of(act: Callable[[], None]) -> int:
    """Bytes above what was held before: device memory on a GPU, resident memory on a CPU."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        act()
        return torch.cuda.max_memory_allocated() - held
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak to what is resident now
    held = status("VmRSS")
    act()
    return status("VmHWM") - held


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(steps: list[Step], repeats: int) -> None:
    for step in steps:
        step()  # optimizer states, caches
        step.peak = peak_of(step)
    for _ in range(repeats):
        for step in steps:
            step.seconds.append(timed(step))
            step.generation.append(timed(step.generate))


def table(steps: list[Step]) -> str:
    first = steps[0]
    lines = [f"{'':22}{'step, s':>9}{'ratio':>7}{'peak, MiB':>11}{'ratio':>7}{'generate, s':>13}{'ratio':>7}"]
    for step in steps:
        seconds, generation = statistics.median(step.seconds), statistics.median(step.generation)
        lines.append(
            f"{step.name:22}{seconds:9.3f}{seconds / statistics.median(first.seconds):7.2f}"
            f"{step.peak / MIB:11.0f}{step.peak / first.peak:7.2f}"
            f"{generation:13.3f}{generation / statistics.median(first.generation):7.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--million", type=float, default=10, help="million weights, about")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    ids = torch.randint(0, 4000, (args.batch, args.tokens), device=DEVICE)
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    for steps in setups(args.million, batch):
        measure(steps, args.repeats)
        numel = sum(p.numel() for p in steps[0].model.parameters()) / 1e6
        size = f"{numel:.1f} million weights, {args.batch} x {args.tokens} tokens"
        print(f"\n{size}, {DEVICE}, median of {args.repeats}")
        print(table(steps), flush=True)


if __name__ == "__main__":
    main()
