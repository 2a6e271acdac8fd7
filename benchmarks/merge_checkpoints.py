"""Merging three checkpoints: scripts/merge_models.py next to mergekit, time, memory and equality.

    bash benchmarks/install_mergekit.sh [FOLDER]
    python benchmarks/merge_checkpoints.py [--mergekit FOLDER] [--layers 18] [--repeats 3]

Makes a Llama of about 177 million random bf16 weights and two models near it. Each merge is its own process,
start-up included; the two tools take turns. Prints the median seconds and the peak resident memory of
both, and how many entries of the results differ by more than one bf16 rounding. mergekit computes in fp32, as
sfa_hf does, and writes bf16. One threshold over the whole vector, which mergekit lacks, is compared with
a direct computation in memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DENSITY, WEIGHTS, T, LAMBDA = 0.2, [0.5, 0.3, 0.2], 0.3, 0.7


@dataclass(frozen=True)
class Case:
    """The same merge in both tools' words; ``theirs`` is None where mergekit lacks it."""

    name: str
    ours: dict[str, Any]
    theirs: dict[str, Any] | None


def cases(folder: Path) -> list[Case]:
    base, a, b = (str(folder / name) for name in ("base", "a", "b"))
    task_vectors = {"base": base, "models": [a, b]}
    float32 = {"dtype": "float32", "out_dtype": "bfloat16"}
    return [
        Case(
            "linear",
            {"models": [base, a, b], "rule": {"name": "average", "weights": WEIGHTS}},
            {
                "merge_method": "linear",
                "models": _weighted([base, a, b], [{"weight": weight} for weight in WEIGHTS]),
                **float32,
            },
        ),
        Case(
            "SLERP",
            {"models": [a, b], "rule": {"name": "slerp", "t": T}},
            {
                "merge_method": "slerp",
                "base_model": a,
                "models": _weighted([a, b], [{}, {}]),
                "parameters": {"t": T},
                **float32,
            },
        ),
        Case(
            "Task Arithmetic",
            {**task_vectors, "rule": {"name": "task_arithmetic", "lambda": LAMBDA}},
            {
                "merge_method": "task_arithmetic",
                "base_model": base,
                "models": _weighted([a, b], [{"weight": 1.0}] * 2),
                "parameters": {"lambda": LAMBDA},
                **float32,
            },
        ),
        Case(
            "TIES, a tensor",
            {**task_vectors, "rule": {"name": "ties", "density": DENSITY, "threshold": "tensor"}},
            {
                "merge_method": "ties",
                "base_model": base,
                "models": _weighted([a, b], [{"weight": 1.0, "density": DENSITY}] * 2),
                "parameters": {"normalize": True},
                **float32,
            },
        ),
        Case(
            "TIES, the vector",
            {**task_vectors, "rule": {"name": "ties", "density": DENSITY, "threshold": "vector"}},
            None,
        ),
    ]


def _weighted(models: list[str], parameters: list[dict[str, float]]) -> list[dict[str, Any]]:
    return [{"model": model, "parameters": each} for model, each in zip(models, parameters, strict=True)]


# --- the models: in a process of their own, as a child's peak memory starts with its parent's -------------


def make_models(folder: Path, layers: int) -> None:
    import torch  # noqa: PLC0415 - see above
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - see above

    config = LlamaConfig(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=layers, num_attention_heads=12
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.save_pretrained(folder / "base")
    for name in ("a", "b"):
        with torch.no_grad():
            for key, weight in model.named_parameters():
                weight.copy_(base[key].float() + 0.002 * torch.randn(weight.shape))
        model.save_pretrained(folder / name)


# --- time and memory --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    mib: float


def measured(command: list[str]) -> Cost:
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)  # noqa: S603 - ours
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)}\n{output.read().decode()[-3000:]}")
    return Cost(time.perf_counter() - begin, usage.ru_maxrss / 1024)


def run(case: Case, folder: Path, mergekit: Path, repeats: int) -> tuple[Cost, Cost | None]:
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_merge(case.name, case.ours, folder, "ours", _our_command()))
        if case.theirs:
            command = [str(mergekit / "bin" / "mergekit-yaml"), "--no-copy-tokenizer"]
            theirs.append(_merge(case.name, case.theirs, folder, "theirs", command))
    return _median(ours), _median(theirs) if theirs else None


def _our_command() -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "merge_models.py")]


def _merge(name: str, recipe: dict[str, Any], folder: Path, who: str, command: list[str]) -> Cost:
    out, file = folder / f"{name}-{who}", folder / f"{name}-{who}.yaml"
    shutil.rmtree(out, ignore_errors=True)
    file.write_text(yaml.safe_dump(recipe))
    options = [argument for argument in command[1:] if argument.startswith("--")]
    return measured([*(each for each in command if each not in options), str(file), str(out), *options])


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(each.seconds for each in costs), statistics.median(each.mib for each in costs)
    )


# --- equality ---------------------------------------------------------------------------------------------


def compare(case: Case, folder: Path) -> str:
    """Say how the results differ; imports torch, so it comes after every measurement."""
    import torch  # noqa: PLC0415 - see above

    ours = weights(folder / f"{case.name}-ours")
    models = [weights(Path(path)) for path in (case.ours.get("base"), *case.ours["models"]) if path]
    thresholds = _thresholds(case, models) if "TIES" in case.name else {}
    theirs = weights(folder / f"{case.name}-theirs") if case.theirs else direct_ties(models, thresholds)
    assert ours.keys() == theirs.keys()
    differing = undecided = 0
    for name, expected in theirs.items():
        wrong = beyond_one_rounding(ours[name], expected, [model[name] for model in models])
        if thresholds and case.theirs:
            # Which of several entries of just the threshold's magnitude mergekit keeps depends on its sort.
            taus = [model[name].float() - models[0][name].float() for model in models[1:]]
            equal = [tau.abs() == t for tau, t in zip(taus, thresholds[name], strict=True)]
            at_threshold = torch.stack(equal).any(dim=0)
            undecided += int((wrong & at_threshold).sum())
            wrong &= ~at_threshold
        differing += int(wrong.sum())
    return f"{differing} differ" + (f", {undecided} at a threshold" if undecided else "")


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file  # noqa: PLC0415 - see above

    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def beyond_one_rounding(ours: Any, theirs: Any, inputs: list[Any]) -> Any:
    """Mask of entries that are farther apart than one bf16 ulp.

    Where terms cancel, fp32's own rounding of the terms shows: 4 of its ulps, at the largest input, are free.
    """
    import torch  # noqa: PLC0415 - see above

    a, b = ours.double(), theirs.double()
    _, exponent = torch.frexp(torch.maximum(a.abs(), b.abs()))
    ulp = torch.ldexp(torch.ones_like(a), exponent - 8)
    largest = torch.stack([each.double().abs() for each in inputs]).amax(dim=0)
    return (a - b).abs() > ulp + 4 * 2.0**-24 * largest


def _thresholds(case: Case, models: list[dict[str, Any]]) -> dict[str, list[Any]]:
    import torch  # noqa: PLC0415 - see above

    names = list(models[0])
    taus = [
        {name: (m[name].float() - models[0][name].float()).abs().view(-1) for name in names}
        for m in models[1:]
    ]
    if case.theirs is None:
        whole = [_kth_largest(torch.cat(list(tau.values()))) for tau in taus]
        return dict.fromkeys(names, whole)
    return {name: [_kth_largest(tau[name]) for tau in taus] for name in names}


def _kth_largest(magnitudes: Any) -> Any:
    keep = max(1, int(DENSITY * magnitudes.numel()))
    return magnitudes.kthvalue(magnitudes.numel() - keep + 1).values


def direct_ties(models: list[dict[str, Any]], thresholds: dict[str, list[Any]]) -> dict[str, Any]:
    """The definition on whole tensors."""
    import torch  # noqa: PLC0415 - see above

    result = {}
    for name, base in models[0].items():
        taus = torch.stack([model[name].float() - base.float() for model in models[1:]])
        limits = torch.stack(thresholds[name]).view(-1, *[1] * base.ndim)
        taus = torch.where(taus.abs() >= limits, taus, 0)
        agreeing = taus.sign() == torch.where(taus.sum(0) >= 0, 1, -1)
        mean = (taus * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
        result[name] = (base.float() + mean).to(base.dtype)
    return result


# --- the command line -------------------------------------------------------------------------------------


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make = [sys.executable, __file__, "--make", str(folder), "--layers", str(arguments.layers)]
        subprocess.run(make, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - this file
        every = cases(folder)
        costs = [run(case, folder, arguments.mergekit, arguments.repeats) for case in every]
        print(f"load of the last minute {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"{'':18}{'seconds':>20}{'ratio':>7}{'peak MiB':>18}{'ratio':>7}  results")
        print(f"{'':18}{'sfa_hf':>10}{'mergekit':>10}{'':7}{'sfa_hf':>9}{'mergekit':>9}", flush=True)
        for case, (ours, theirs) in zip(every, costs, strict=True):
            print(_line(case.name, ours, theirs) + compare(case, folder), flush=True)


def _line(name: str, ours: Cost, theirs: Cost | None) -> str:
    if theirs is None:
        return f"{name:18}{ours.seconds:10.1f}{'':17}{ours.mib:9.0f}{'':16}  "
    return (
        f"{name:18}{ours.seconds:10.1f}{theirs.seconds:10.1f}{theirs.seconds / ours.seconds:7.1f}"
        f"{ours.mib:9.0f}{theirs.mib:9.0f}{theirs.mib / ours.mib:7.1f}  "
    )


def _parse() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mergekit", type=Path, default=cache / "sfa_hf" / "mergekit", help="its environment"
    )
    parser.add_argument("--layers", type=int, default=18, help="7.1 million weights each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_models(arguments.make, arguments.layers)
        sys.exit(0)
    if not (arguments.mergekit / "bin" / "mergekit-yaml").is_file():
        parser.error(f"no mergekit in {arguments.mergekit}: run benchmarks/install_mergekit.sh first")
    return arguments


if __name__ == "__main__":
    main()
