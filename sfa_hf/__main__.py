"""``python -m sfa_hf`` is ``sfa-hf``."""

from sfa_hf.commands.main import main

if __name__ == "__main__":
    main()
