"""PEFT adapters: which parameters make one update of a weight together, and their exact average."""
