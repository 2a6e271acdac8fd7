"""``sfa-hf evaluate`` as a script.

usage: accelerate launch scripts/evaluate_model.py MODEL task=math [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("evaluate")
