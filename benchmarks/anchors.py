"""The cost of an anchor in each place: memory, time to take it, time of a merge with it.

    python benchmarks/anchors.py [--million 500] [--repeats 3]

The anchor is read from a saved fp32 model and kept in host memory, on disk (a mapped file) or on the device,
as fp32 or bf16. Prints for each: the memory that it adds to the process (its own, and pages of mapped files,
which the system takes back when it needs them), device memory, the seconds to take and check it, and the
seconds of a merge (median). Then four ranks read the same file, each the quarter that it owns; prints what
each read from disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sfa_hf.anchor.merge import merge
from sfa_hf.anchor.taker import AnchorTaker
from sfa_hf.anchor.weighting import Weights
from sfa_hf.engines import Shard, attach
from sfa_hf.rules import Average
from sfa_hf.shards.buffer import ShardBuffer
from sfa_hf.shards.model_files import AnchorFiles
from sfa_hf.shards.store import open_store

MIB = 2**20
RANKS = 4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Memory(NamedTuple):
    """Bytes of this process: its own, of mapped files, and on the device."""

    own: int
    mapped: int
    device: int

    @classmethod
    def now(cls) -> Memory:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        own, mapped = (int(lines[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile"))
        # A mapped file that is shared and written, as an anchor on disk is, counts as RssFile too.
        return cls(own, mapped, torch.cuda.memory_allocated() if DEVICE == "cuda" else 0)

    def since(self, before: Memory) -> Memory:
        return Memory(*(now - then for now, then in zip(self, before, strict=True)))


def model_of(million: int) -> LlamaForCausalLM:
    """A Llama of about so many million parameters, with random weights."""
    width = 1024
    layers = max(1, round((million * 1e6 - 2 * 32000 * width) / (16 * width**2)))
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=16,
    )
    return LlamaForCausalLM(config)


def measure(folder: Path, place: str, dtype: str, repeats: int) -> None:
    """Take an anchor for a whole model and merge with it; print one row."""
    model = LlamaForCausalLM.from_pretrained(folder, use_safetensors=True).to(DEVICE)
    engine = attach(model, torch.optim.SGD(model.parameters(), lr=0.0))
    shards = engine.shards()
    for shard in shards:
        shard.data.add_(0.01)  # the model's own memory, no longer pages of the file
    before = Memory.now()
    taker = AnchorTaker(str(folder), place, dtype, str(folder / "out"), 0)
    started = time.perf_counter()
    anchor, _ = taker.take(engine, model, shards)
    taken, added = time.perf_counter() - started, Memory.now().since(before)
    seconds = []
    for step in range(repeats):
        started = time.perf_counter()
        merge(engine, shards, anchor, rule=Average(), weights=Weights(0.3), seed=(step,))
        seconds.append(time.perf_counter() - started)
    taker.release()
    own, mapped, device = (f"{bytes_ / MIB:8.0f}" for bytes_ in added)
    print(
        f"{place:7} {dtype:9} {own} {mapped} {device} {taken:8.2f} {statistics.median(seconds):8.2f}",
        flush=True,
    )


def quarters(model: LlamaForCausalLM, rank: int) -> Iterator[Shard]:
    """The slices of a rank, cut as ZeRO-3 cuts each parameter; memory is taken when it is written to."""
    for name, parameter in model.named_parameters():
        size = -(-parameter.numel() // RANKS)
        first = min(rank * size, parameter.numel())
        count = min(size, parameter.numel() - first)
        yield Shard(name, torch.empty(count), first, parameter.shape)


def read_quarter(folder: Path, rank: int) -> None:
    """Read one rank's part of a saved model; print what was touched."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    shards = list(quarters(model, rank))
    forget(folder)
    read, before = bytes_read(), Memory.now()
    started = time.perf_counter()
    files = AnchorFiles(str(folder), model)
    files.check(shards)
    anchor = ShardBuffer(shards, files.read, open_store("cpu", shards, torch.float32, Path()))
    seconds, added = time.perf_counter() - started, Memory.now().since(before)
    print(
        f"rank {rank}: owns {anchor.nbytes / MIB:6.0f} MiB, own memory {added.own / MIB:6.0f} MiB, "
        f"read from the disk {(bytes_read() - read) / MIB:6.0f} MiB, {seconds:.2f} s",
        flush=True,
    )


def forget(folder: Path) -> None:
    """Have the system drop its copies of the files in a folder, so that reading them reads the disk."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int:
    """Bytes that this process has caused to be read from storage, read-ahead included."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def in_a_process_of_its_own(run: Callable[[], None]) -> None:
    """Fork: memory is measured from a clean start each time."""
    pid = os.fork()
    if pid == 0:
        run()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--million", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_process_of_its_own(lambda: model_of(options.million).save_pretrained(folder))
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        print(f"{size / 4e6:.0f} million fp32 parameters, {size / MIB:.0f} MiB, on {DEVICE}")
        print("anchor  dtype          own   mapped   device    taken    merge   (MiB, MiB, MiB, s, s)")
        for place, dtype in product(("cpu", "disk", "device"), ("float32", "bfloat16")):
            if place == "device" and DEVICE == "cpu":
                continue  # the same memory as "cpu"
            in_a_process_of_its_own(
                lambda place=place, dtype=dtype: measure(folder, place, dtype, options.repeats)
            )
        for rank in range(RANKS):
            in_a_process_of_its_own(lambda rank=rank: read_quarter(folder, rank))


if __name__ == "__main__":
    main()
