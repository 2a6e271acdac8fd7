"""``sfa-hf runs`` as a script.

usage: python scripts/compare_runs.py BEFORE AFTER [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("runs")
