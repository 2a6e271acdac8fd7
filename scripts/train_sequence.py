"""``sfa-hf train`` as a script.

usage: accelerate launch scripts/train_sequence.py CONFIG [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("train")
