"""The command ``sfa-hf``: one file for each subcommand, imported when it is asked for."""
