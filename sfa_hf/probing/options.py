"""Options of a probe."""

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
    """A second curve: the merge weighted by optimizer states.

    Attributes:
        a: F of A, a safetensors file or a folder of them, as in a merge recipe.
        b: F of B, like ``a``.
        power: power q of F, > 0; 1 is that of CMM.
        epsilon: epsilon relative to the mean of F, > 0.
    """

    a: UserPath
    b: UserPath
    power: float = Field(default=1.0, gt=0)
    epsilon: float = Field(default=1e-6, gt=0)


class FeatureOptions(_Strict):
    """The distance of the features on the path from those of A and of B.

    Attributes:
        rows: held-out rows per task, > 0.
        layer: position in ``hidden_states``; -1 is the input of the output head.
    """

    rows: int = Field(default=64, gt=0)
    layer: int = -1


class ModelOptions(_Strict):
    r"""How the models are loaded.

    Attributes:
        dtype: dtype of the weights.
        linearised_at: folder or Hub id of \theta_0, to measure each point linearised; None for not
            linearised.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    linearised_at: UserPath | None = None


class ProbeOptions(_Strict):
    """The options of a probe.

    Attributes:
        task: tasks to measure on, as names or YAML files.
        points: number of points from 0 (A) to 1 (B), both included, >= 2.
        beyond: how far the straight line continues beyond each end, as a fraction of its length, in [0, 10].
        fisher: also measure the merge weighted by optimizer states; null for no second curve.
        models: other checkpoints to measure, by name, e.g. a merged and a corrected one.
        features: compare features; null compares none, and A and B are then not kept in memory.
        model: how models are loaded.
        evaluation: evaluation options, as in the config of a sequence.
        data: data options, as in the config of a sequence.
        output_dir: folder for probe.json and the plots.
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
