#!/usr/bin/env bash
# mergekit 0.1.5 in a virtual environment of its own, for benchmarks/merge_checkpoints.py to compare with.
#
# usage: bash benchmarks/install_mergekit.sh [FOLDER]      default: ~/.cache/sfa_hf/mergekit
#
# mergekit pins versions years behind ours (pydantic, accelerate, huggingface_hub), hence its own environment.
# torch comes first and by exact version, so that no range pulls a CUDA build; mergekit itself comes without its
# torch, which --no-deps leaves as it is, and then with the rest of its dependencies at its own pins.
set -euo pipefail

folder="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/sfa_hf/mergekit}"
python="${PYTHON:-python3}"

"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip install -q "$@"; }
pip --upgrade pip
pip torch==2.13.0
pip --no-deps mergekit==0.1.5
"$folder/bin/python" - > "$folder/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

for line in requires("mergekit"):
    if "extra ==" not in line and not line.startswith("torch"):
        print(line)
PYTHON
pip -r "$folder/requirements.txt" torch==2.13.0
"$folder/bin/python" -c 'import torch; print("torch", torch.__version__)'
echo "$folder/bin/mergekit-yaml"
