"""The share of answers that equal the reference, white space aside."""

import datasets
import evaluate

from sfa_hf.evaluation.answers import normalised
from sfa_hf.evaluation.statistics import mean_stderr


class ExactMatch(evaluate.Metric):
    """``compute(predictions=[str], references=[str])``."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        pairs = zip(predictions, references, strict=True)
        hits = [float(normalised(answer) == normalised(right)) for answer, right in pairs]
        return {"exact_match": sum(hits) / len(hits), "stderr": mean_stderr(hits)}
