"""Print the script that lets a shell complete commands, shipped configs, keys and choices.

bash   eval "$(sfa-hf completion bash)"      in ~/.bashrc
zsh    eval "$(sfa-hf completion zsh)"       in ~/.zshrc, behind compinit
fish   sfa-hf completion fish | source       in ~/.config/fish/config.fish
"""

from __future__ import annotations

from click.shell_completion import get_completion_class

from sfa_hf.errors import ConfigError, nearest

_HOW = {
    "bash": 'put this line into ~/.bashrc: eval "$(sfa-hf completion bash)"',
    "zsh": 'put this line into ~/.zshrc, behind compinit: eval "$(sfa-hf completion zsh)"',
    "fish": "put this line into ~/.config/fish/config.fish: sfa-hf completion fish | source",
}

_NO_SPACE = "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
"""bash puts a space behind what it completes: not behind "method.beta=", where the value follows."""


def run(shell: str) -> None:
    """Print the script, with how to use it."""
    from sfa_hf.commands.main import COMMAND, NAME  # noqa: PLC0415 - it imports this file by name

    kind = get_completion_class(shell)
    if shell not in _HOW or kind is None:
        raise ConfigError("SHELL", f"there is no completion for {shell!r}", nearest(shell, _HOW))
    source = kind(COMMAND, {}, NAME, "_SFA_HF_COMPLETE").source()
    print(f"# {_HOW[shell]}")
    print(source.replace("    return 0\n", f"{_NO_SPACE}    return 0\n") if shell == "bash" else source)
