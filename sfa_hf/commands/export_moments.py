"""Write the second moments that a training left as whole tensors, for the rule fisher of sfa-hf merge.

  sfa-hf export-moments runs/x/0-math/_second_moments runs/x/0-math/model runs/x-fisher-math

MOMENTS is the folder _second_moments of a training with SecondMomentsCallback,
SFACallback(rule="fisher") or method.name=sfa_fisher; MODEL the model that it left. OUT_DIR must
not exist.
"""

from __future__ import annotations

from pathlib import Path

from sfa_hf.checkpoints.moments import export_moments
from sfa_hf.config.paths import check_writable, expanded


def run(moments: str, model: str, out_dir: str) -> None:
    """Export, and say how many tensors."""
    given = {"MOMENTS": moments, "MODEL": model, "OUT_DIR": out_dir}
    folders = {name: Path(expanded(path, name)) for name, path in given.items()}
    check_writable("OUT_DIR", folders["OUT_DIR"])
    print(f"{folders['OUT_DIR']}: {export_moments(*folders.values())} tensors")
