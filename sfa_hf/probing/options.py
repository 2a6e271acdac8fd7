"""What a probe measures, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sfa_hf.config.paths import UserPath, expanded
from sfa_hf.evaluation import EvaluationOptions
from sfa_hf.tasks import DataOptions


def _folder(given: Any) -> Any:
    return Path(expanded(given)) if isinstance(given, str) else given


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class FisherOptions(_Strict):
    """Merging by optimizer state, beside averaging.

    Attributes:
        a: F of A: a safetensors file or a folder of them, as ``sfa-hf merge`` reads it.
        b: F of B.
        power: q of the rule ``fisher``; 1 is CMM's.
        epsilon: of the rule.
    """

    a: UserPath
    b: UserPath
    power: float = Field(default=1.0, gt=0)
    epsilon: float = Field(default=1e-6, gt=0)


class FeatureOptions(_Strict):
    """Distance of the path's features from those of A and of B.

    Attributes:
        rows: held-out rows of each task to measure on.
        layer: position in ``hidden_states``; -1 is what the output head reads.
    """

    rows: int = Field(default=64, gt=0)
    layer: int = -1


class ModelOptions(_Strict):
    r"""How the models are loaded.

    Attributes:
        dtype: of the weights.
        linearised_at: \theta_0: each point is measured linearised there.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    linearised_at: UserPath | None = None


class ProbeOptions(_Strict):
    """A probe.

    Attributes:
        task: names of tasks, or YAML files.
        points: from 0 (A) to 1 (B), both among them.
        beyond: how far the straight line goes on behind either end, in the same steps.
        fisher: also merge by optimizer state.
        models: further checkpoints by name, e.g. a merged and a corrected one.
        features: None: no features are compared, and A and B are not kept in memory.
        model: how models are loaded.
        evaluation: as in a sequence's config.
        data: likewise.
        output_dir: for probe.json and the plots.
    """

    task: str | list[str]
    points: int = Field(default=11, ge=2)
    beyond: float = Field(default=0.2, ge=0, le=10)
    fisher: FisherOptions | None = None
    models: dict[str, UserPath] = {}
    features: FeatureOptions | None = FeatureOptions()
    model: ModelOptions = ModelOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    data: DataOptions = DataOptions()
    output_dir: Annotated[Path, BeforeValidator(_folder)]
