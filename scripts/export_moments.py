"""Write the second moments that a training left as whole tensors, for the rule fisher of merge_models.py.

usage: python scripts/export_moments.py MOMENTS MODEL OUT_DIR
e.g.   python scripts/export_moments.py runs/x/0-math/second_moments runs/x/0-math/model runs/x-fisher-math

MOMENTS is the folder second_moments of a training with SecondMomentsCallback, SFACallback(rule="fisher") or
method.name=sfa_fisher; MODEL the model that it left. OUT_DIR must not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfa_hf.checkpoints.moments import export_moments
from sfa_hf.config.cli import run_main
from sfa_hf.errors import ConfigError

USAGE = "scripts/export_moments.py MOMENTS MODEL OUT_DIR"


def main(arguments: Sequence[str]) -> None:
    for place, name in enumerate(("MOMENTS", "MODEL", "OUT_DIR")):
        if len(arguments) <= place or arguments[place].startswith("-"):
            raise ConfigError(name, "is missing", USAGE)
    moments, model, out = map(Path, arguments[:3])
    print(f"{out}: {export_moments(moments, model, out)} tensors")


if __name__ == "__main__":
    run_main(main)
