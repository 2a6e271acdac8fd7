"""``sfa-hf compare`` as a script.

usage: accelerate launch scripts/compare_methods.py CONFIG [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("compare")
