"""pass@k by the unbiased estimator, averaged over prompts."""

import datasets
import evaluate

from sfa_hf.evaluation.pass_at_k import pass_at_k
from sfa_hf.evaluation.statistics import mean_stderr


class PassAtK(evaluate.Metric):
    """``compute(samples=[int], passed=[int], k=[int])``: programs made of each prompt, and how many pass."""

    def _info(self) -> evaluate.MetricInfo:
        count = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features({"samples": count, "passed": count}),
        )

    def _compute(self, samples: list[int], passed: list[int], k: list[int]) -> dict[str, float]:
        found = {}
        for each in k:
            values = [pass_at_k(n, c, each) for n, c in zip(samples, passed, strict=True)]
            found[f"pass@{each}"] = sum(values) / len(values)
            found[f"pass@{each}_stderr"] = mean_stderr(values)
        return found
