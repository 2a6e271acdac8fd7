"""The share of rows whose chosen answer is the right one."""

import datasets
import evaluate

from sfa_hf.evaluation.statistics import mean_stderr


class Accuracy(evaluate.Metric):
    """``compute(predictions=[int], references=[int])``: positions in the row's list of choices."""

    def _info(self) -> evaluate.MetricInfo:
        position = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features({"predictions": position, "references": position}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        hits = [float(chosen == right) for chosen, right in zip(predictions, references, strict=True)]
        return {"accuracy": sum(hits) / len(hits), "stderr": mean_stderr(hits)}
