"""``sfa-hf correct`` as a script.

usage: python scripts/correct_model.py MERGED OUT_DIR teacher=FOLDER task=law [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("correct")
