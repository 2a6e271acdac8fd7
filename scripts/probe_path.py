"""``sfa-hf probe`` as a script.

usage: accelerate launch scripts/probe_path.py A B task=law [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("probe")
