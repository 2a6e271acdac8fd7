"""Negative log-likelihood of the targets, in nats a token."""

import math

import datasets
import evaluate

from sfa_hf.evaluation.statistics import ratio_stderr


class NLL(evaluate.Metric):
    """``compute(log_likelihoods=[float], tokens=[int], bytes=[int])``: one of each a row.

    Tokens are pooled over the rows: nll = -sum(log_likelihoods) / sum(tokens), perplexity = exp(nll), and
    bits_per_byte, which does not depend on the tokenizer. The standard error treats rows, not tokens, as the
    independent draws.
    """

    def _info(self) -> evaluate.MetricInfo:
        count = datasets.Value("int64")
        features = {"log_likelihoods": datasets.Value("float64"), "tokens": count, "bytes": count}
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=type(self).__doc__,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        log_likelihoods: list[float],
        tokens: list[int],
        bytes: list[int],  # noqa: A002 - the name under which callers give the column
    ) -> dict[str, float]:
        total = -math.fsum(log_likelihoods)
        nll = total / sum(tokens)
        return {
            "nll": nll,
            "stderr": ratio_stderr(log_likelihoods, tokens),
            "perplexity": math.exp(min(nll, 700.0)),  # a float's exp overflows beyond
            "bits_per_byte": total / (sum(bytes) * math.log(2)),
        }
