"""``sfa-hf demo`` as a script.

usage: python scripts/demo.py [key=value ...]
"""

from sfa_hf.commands.main import script

if __name__ == "__main__":
    script("demo")
