r"""The points of a probe, and the merge that makes each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfa_hf.probing.options import ProbeOptions

LINEAR, FISHER = "linear", "fisher"


@dataclass(frozen=True)
class Point:
    r"""One model of a probe.

    Attributes:
        curve: "linear", "fisher", or "" for a checkpoint beside the path.
        alpha: weight of B; None beside the path.
        name: name of a checkpoint beside the path.
    """

    curve: str
    alpha: float | None = None
    name: str = ""

    @property
    def key(self) -> str:
        """Name of the point in probe.json."""
        return self.name if self.alpha is None else f"{self.curve} {self.alpha:.6g}"


def points(options: ProbeOptions) -> list[Point]:
    """Return the ends, the rest of the straight line, the other curve, and the other checkpoints."""
    step = 1 / (options.points - 1)
    outside = int(options.beyond / step + 1e-9)
    inner = [round(i * step, 9) for i in range(1, options.points - 1)]
    outer = [round(s, 9) for i in range(1, outside + 1) for s in (-i * step, 1 + i * step)]
    line = [Point(LINEAR, alpha) for alpha in (0.0, 1.0, *sorted([*inner, *outer]))]
    curve = [Point(FISHER, alpha) for alpha in inner] if options.fisher else []
    return [*line, *curve, *(Point("", name=name) for name in options.models)]


def recipe(point: Point, a: str, b: str, options: ProbeOptions) -> dict[str, Any]:
    r"""Return the recipe of a point that is not a checkpoint, for :func:`sfa_hf.checkpoints.make_recipe`.

    The straight line is a task vector of any length, \theta_A + \alpha (\theta_B - \theta_A), so that it
    continues beyond both ends.
    """
    if point.curve == LINEAR:
        return {"base": a, "models": [b], "rule": {"name": "task_arithmetic", "lambda": point.alpha}}
    given, alpha = options.fisher, point.alpha
    assert given is not None
    assert alpha is not None
    rule = {"name": "fisher", "power": given.power, "epsilon": given.epsilon, "weights": [1 - alpha, alpha]}
    return {"models": [{"path": a, "fisher": given.a}, {"path": b, "fisher": given.b}], "rule": rule}


def arguments_of(point: Point) -> dict[str, str]:
    """The probe's arguments by the keys of a point's recipe, for its errors."""
    if point.curve == LINEAR:
        return {"base": "A", "models.0": "B"}
    return {"models.0.fisher": "fisher.a", "models.1.fisher": "fisher.b", "models.0": "A", "models.1": "B"}
