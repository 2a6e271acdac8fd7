"""``sfa-hf export-moments`` as a script.

usage: python scripts/export_moments.py MOMENTS MODEL OUT_DIR
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("export-moments")
