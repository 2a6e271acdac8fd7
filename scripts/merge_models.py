"""``sfa-hf merge`` as a script.

usage: python scripts/merge_models.py RECIPE OUT_DIR [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("merge")
