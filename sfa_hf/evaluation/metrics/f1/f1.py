"""F1 of one class: the harmonic mean of its precision and recall."""

import datasets
import evaluate

from sfa_hf.evaluation.answers import normalised
from sfa_hf.evaluation.statistics import Confusion


class F1(evaluate.Metric):
    """``compute(predictions=[str], references=[str], positive=str)``; white space aside."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str], positive: str) -> dict[str, float]:
        wanted = normalised(positive)
        counts = Confusion.count(
            [normalised(answer) == wanted for answer in predictions],
            [normalised(right) == wanted for right in references],
        )
        return {
            "f1": counts.f1,
            "stderr": counts.f1_stderr(),
            "precision": counts.precision,
            "recall": counts.recall,
        }
