"""``sfa-hf``: the list of commands, and the way to each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

import click

from sfa_hf.commands.command import WIDTH, Command, Entry, Place
from sfa_hf.config.cli import guard
from sfa_hf.errors import ConfigError, nearest

_MODEL = "a folder, a Hub id, or builtin:pythia, builtin:llama, builtin:qwen"
COMMANDS = {
    "train": Entry(
        "Fine-tune a model on one task after another, and score every task after each.",
        (Place("CONFIG", "a YAML file, or the name of a shipped config", ("sequences",)),),
        distributed=True,
    ),
    "compare": Entry(
        "Run a sequence with several methods and seeds, and compare them.",
        (Place("CONFIG", "a YAML file, or the name of a shipped config", ("comparisons", "sequences")),),
        distributed=True,
    ),
    "merge": Entry(
        "Merge saved models into a new folder.",
        (
            Place("RECIPE", "a YAML file, or the name of a shipped recipe", ("merges",)),
            Place("OUT_DIR", "a folder that does not exist"),
        ),
    ),
    "evaluate": Entry("Score a model on one task or several.", (Place("MODEL", _MODEL),), distributed=True),
    "probe": Entry(
        "Loss, score and features along the path between two checkpoints.",
        (Place("A", f"the checkpoint at 0: {_MODEL}"), Place("B", "the checkpoint at 1")),
        distributed=True,
    ),
    "correct": Entry(
        "Bring a merged model's features back to those of another model.",
        (Place("MERGED", _MODEL), Place("OUT_DIR", "a folder that does not exist")),
        distributed=True,
    ),
    "runs": Entry(
        "Compare two scored runs row by row: what changed, and is it more than chance?",
        (
            Place("BEFORE", "a run folder, or one that sfa-hf evaluate wrote"),
            Place("AFTER", "another, of the same tasks"),
        ),
    ),
    "export-moments": Entry(
        "Write the second moments that a training left, for the rule fisher of merge.",
        (
            Place("MOMENTS", "the folder _second_moments of a training"),
            Place("MODEL", "the folder of the model that it left"),
            Place("OUT_DIR", "a folder that does not exist"),
        ),
        keys=False,
    ),
    "demo": Entry("Math, Law and Code on a tiny model, once plain and once with SFA, side by side."),
    "doctor": Entry("What is installed, and what works on this machine.", keys=False),
    "completion": Entry(
        "Print the script that completes commands, configs and keys in a shell.",
        (Place("SHELL", "bash, zsh or fish", words=("bash", "zsh", "fish")),),
        keys=False,
    ),
}
NAME = "sfa-hf"


class _Commands(click.Group):
    """The commands by name; the file of each is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        return Command(cmd_name, COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; what looks like an option, and is none, is one line."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise ConfigError(error.option_name, "is not an option", "--help or --version") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was asked for; an unknown one is one line."""
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise ConfigError(args[0], "is not a command", nearest(args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The usage line."""
        formatter.write_usage(ctx.command_path, "COMMAND ...", "usage: ")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, and how several processes are launched."""
        del ctx
        with formatter.section("examples"):
            formatter.write_dl(
                [
                    ("sfa-hf demo", "see it work, in a few minutes on two CPU cores"),
                    ("sfa-hf train demo method.beta=0.5", "a shipped config by name, one key changed"),
                    ("sfa-hf train --help", "every key that a config may have"),
                    ("accelerate launch -m sfa_hf train demo", "on several processes"),
                ],
                col_max=42,
            )


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        click.echo(f"{NAME} {version('sfa_hf')}")
        ctx.exit()


COMMAND = _Commands(
    NAME,
    help="Fine-tune a language model on one task after another without forgetting: sequential fine-tuning "
    "with averaging for the Hugging Face Trainer.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": WIDTH,
        "terminal_width": WIDTH,
    },
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_show_version,
            help="Show the version and exit.",
        )
    ],
)


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Run a command in this process, as its function would be called.

    Args:
        name: one of :data:`COMMANDS`.
        arguments: as on its command line.

    Raises:
        ConfigError: what the command line would answer in one line, with exit code 2.
    """
    _call(Command(name, COMMANDS[name]), name, list(arguments))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """``sfa-hf ARGUMENTS``; those of the process if None.

    Ends with exit code 0, 2, 65, 69, 70, 74, 75 or 130: see docs/resume.md.
    """
    _run(COMMAND, NAME, arguments)


def script(name: str) -> NoReturn:
    """A command as a script of its own, for ``accelerate launch scripts/NAME.py ARGUMENTS``."""
    _run(Command(name, COMMANDS[name]), sys.argv[0], None)


def _run(command: click.Command, name: str, arguments: Sequence[str] | None) -> NoReturn:
    args = list(sys.argv[1:] if arguments is None else arguments)
    guard(lambda: _call(command, name, args or ["--help"]))


def _call(command: click.Command, name: str, arguments: list[str]) -> None:
    try:
        command.main(arguments, prog_name=name, standalone_mode=False)
    except click.Abort as error:
        raise KeyboardInterrupt from error
