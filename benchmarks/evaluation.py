"""Scoring rows with sfa_hf, one by one, and with lm-eval: do they agree, and how fast are they?

    python benchmarks/evaluation.py [--model builtin:pythia] [--rows 200] [--repeats 5] [--batch 32]

Installs lm-eval in its own environment (.venv-lm-eval, on top of this one) unless it is installed. The rows
are generated, so nothing is downloaded: a choice among log-likelihoods (law) and greedy answers (math).
Prints for each where the three differ, and rows per second (median of the repeats) with their ratios to those
of sfa_hf. "one by one" is a plain loop without batches: one forward pass per choice, one `generate` per row.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sfa_hf.evaluation import EvaluationOptions, evaluate_task, read_records
from sfa_hf.generated import generate
from sfa_hf.models import load_model, resolve_model
from sfa_hf.tasks import Encoding, Task, load_task

LM_EVAL = "lm_eval==0.4.13"
ENVIRONMENT = Path(".venv-lm-eval")
NEW_TOKENS = 8
STOP = "\n"
# by kind of scoring: which generated rows, and how they are asked
QUESTIONS: dict[str, dict[str, str]] = {
    "choice": {"rows": "law", "prompt": "{{ clause }}\n{{ question }}\nLabel:", "choices": "{{ choices }}"},
    "generate": {"rows": "math", "prompt": "{{ question }}\nAnswer:"},
}
SCORINGS: dict[str, dict[str, Any]] = {
    "choice": {"kind": "choice"},
    "generate": {"kind": "generate", "max_new_tokens": NEW_TOKENS, "stop": [STOP]},
}
Answers = list[Any]
Way = Callable[[], Answers]


class Setting:
    """One kind of scoring on one model: the rows, and three ways to score them.

    Each way returns an answer a row: the choices' log-likelihoods in nats, or the text.
    """

    def __init__(self, kind: str, where: str, folder: Path, options: argparse.Namespace) -> None:
        self.kind, self.batch, self.folder = kind, options.batch, folder
        self.data = folder / f"{kind}.jsonl"
        rows = generate(QUESTIONS[kind]["rows"], "test", options.rows, 0)
        self.data.write_text("".join(json.dumps(_spaced(row)) + "\n" for row in rows))
        self.model, self.tokenizer = load_model(where, "float32")
        self.model.eval()
        self.task = self._task()
        self.ways: dict[str, Way] = {
            "sfa_hf": self.ours,
            "one by one": self.one_by_one,
            "lm-eval": self._lm_eval(),
        }

    def ours(self) -> Answers:
        path = self.folder / "records.jsonl"
        options = EvaluationOptions(batch_size=self.batch, progress=False)
        evaluate_task(self.model, self.tokenizer, self.task, Encoding(), options, records_path=path)
        key = "log_likelihoods" if self.kind == "choice" else "output"
        return [record[key] for record in read_records(path)]

    def one_by_one(self) -> Answers:
        rows = self.task.heldout_rows()
        with torch.no_grad():
            if self.kind == "choice":
                return [
                    [likelihood(self.model, self.tokenizer, row.prompt, choice) for choice in row.choices]
                    for row in rows
                ]
            return [continuation(self.model, self.tokenizer, row.prompt) for row in rows]

    def _task(self) -> Task:
        asked = {key: value for key, value in QUESTIONS[self.kind].items() if key != "rows"}
        source = [{"path": str(self.data)}]
        spec = {"name": self.kind, "target": "{{ answer }}", "heldout": source, **asked}
        return load_task({**spec, "scoring": SCORINGS[self.kind]}, search=[], data_dir=self.folder)

    def _lm_eval(self) -> Way:
        from lm_eval import simple_evaluate  # noqa: PLC0415 - in the environment that this script makes
        from lm_eval.models.huggingface import HFLM  # noqa: PLC0415
        from lm_eval.tasks import TaskManager  # noqa: PLC0415

        name = f"bench_{self.kind}"
        tasks = self.folder / f"lm-eval-{self.kind}"
        tasks.mkdir()
        (tasks / "task.yaml").write_text(yaml.safe_dump({"task": name, **self._yaml()}))
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        model = HFLM(pretrained=self.model, tokenizer=self.tokenizer, batch_size=self.batch)

        def run() -> Answers:
            found = simple_evaluate(model=model, tasks=[name], task_manager=manager, bootstrap_iters=0)
            samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
            answers = [sample["filtered_resps"] for sample in samples]
            return [
                [float(each[0]) for each in answer] if self.kind == "choice" else answer[0]
                for answer in answers
            ]

        return run

    def _yaml(self) -> dict[str, Any]:
        shared = {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(self.data)}},
            "test_split": "test",
            "doc_to_text": QUESTIONS[self.kind]["prompt"],
            "target_delimiter": "",
        }
        if self.kind == "choice":
            return {
                **shared,
                "output_type": "multiple_choice",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{choices.index(answer)}}",
            }
        generation = {"until": [STOP], "max_gen_toks": NEW_TOKENS, "do_sample": False}
        return {
            **shared,
            "output_type": "generate_until",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": generation,
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }


def likelihood(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, choice: str) -> float:
    """Ln P(choice | prompt) in nats, from one forward pass over both."""
    before = tokenizer(prompt)["input_ids"]
    after = tokenizer(choice, add_special_tokens=False)["input_ids"]
    chances = model(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(chances[len(before) - 1 + place, token].item() for place, token in enumerate(after))


def continuation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The greedy continuation up to the stop string."""
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        stop_strings=[STOP],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    ids = model.generate(**inputs, generation_config=config, tokenizer=tokenizer)[0]
    text = tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.partition(STOP)[0]


def compare(setting: Setting, repeats: int) -> None:
    answers, rates = {}, {}
    for name, way in setting.ways.items():
        answers[name] = way()  # the first call loads and compiles: not timed
        rates[name] = []
    for _ in range(repeats):  # in turn, so that a busy minute of the machine hits all of them
        for name, way in setting.ways.items():
            started = time.perf_counter()
            way()
            rates[name].append(len(answers[name]) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{setting.kind}: {len(answers['sfa_hf'])} rows, batches of {setting.batch}")
    for name, median in medians.items():
        spread = f"{min(rates[name]):.1f} ... {max(rates[name]):.1f}"
        ratio = medians["sfa_hf"] / median
        agreement = "" if name == "sfa_hf" else f"   {differing(answers['sfa_hf'], answers[name])}"
        print(f"  {name:<11}{median:8.1f} rows/s ({spread})   ours is {ratio:.2f} x{agreement}")


def differing(ours: Answers, theirs: Answers) -> str:
    if isinstance(ours[0], str):
        return f"{sum(a != b for a, b in zip(ours, theirs, strict=True))} of {len(ours)} texts differ"
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a, b, strict=True)]
    return f"log-likelihoods differ by at most {max(abs(a - b) for a, b in pairs):.1e} nats"


def in_its_own_environment() -> None:
    """Run this script again where lm-eval is installed, beside all that is installed here."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        (packages,) = ENVIRONMENT.glob("lib/python*/site-packages")
        here = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "beside.pth").write_text("\n".join(here) + "\n")
    for arguments in (["-m", "pip", "install", "-q", LM_EVAL], sys.argv):
        subprocess.run([python, *arguments], check=True)  # noqa: S603 - this script and pip, nothing else


def _spaced(row: dict[str, Any]) -> dict[str, Any]:
    """Answers with the space that stands before them in the text."""
    spaced = {**row, "answer": f" {row['answer']}"}
    return spaced | ({"choices": [f" {each}" for each in row["choices"]]} if "choices" in row else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:pythia", help="Hub id, folder or built-in model")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    if find_spec("lm_eval") is None:
        in_its_own_environment()
        return
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    where = resolve_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        for kind in QUESTIONS:
            compare(Setting(kind, where, Path(folder), options), options.repeats)


if __name__ == "__main__":
    main()
