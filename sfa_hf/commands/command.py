"""A subcommand: what stands on its line, its help, and the call of its file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from sfa_hf.commands.completing import completed
from sfa_hf.config.overrides import parse_overrides
from sfa_hf.config.shipped import Kind
from sfa_hf.errors import ConfigError

WIDTH = 100


@dataclass(frozen=True)
class Place:
    """A positional argument.

    Attributes:
        name: as the help shows it.
        help: what it is.
        kinds: of shipped configs that it may name; () for a folder or a model.
        words: the words it may be; () where there is no such list.
    """

    name: str
    help: str
    kinds: tuple[Kind, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What is known of a command before its file is imported.

    The file, ``sfa_hf/commands/NAME.py``, says the rest: its docstring is the help, ``sections()`` gives the
    sections of keys, and ``run(*places, overrides)`` does it.

    Attributes:
        summary: one line for the list of commands.
        places: its positional arguments.
        keys: whether key=value arguments may follow.
        distributed: whether ``accelerate launch`` may start it in several processes.
    """

    summary: str
    places: tuple[Place, ...] = ()
    keys: bool = True
    distributed: bool = False

    @property
    def usage(self) -> str:
        """The places, then key=value."""
        return " ".join([*(place.name for place in self.places), *(["[key=value ...]"] if self.keys else [])])


class Command(click.Command):
    """A command whose arguments are places, then ``key=value``."""

    def __init__(self, name: str, entry: Entry) -> None:
        words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, shell_complete=self._complete)
        settings = {
            "help_option_names": ["-h", "--help"],
            "max_content_width": WIDTH,
            "terminal_width": WIDTH,
        }
        super().__init__(
            name, params=[words], context_settings=settings, short_help=entry.summary, add_help_option=True
        )
        self.entry = entry

    @property
    def file(self) -> Any:
        """The module that carries the command out."""
        return import_module(f"sfa_hf.commands.{(self.name or '').replace('-', '_')}")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; what looks like an option, and is none, is one line."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise ConfigError(
                error.option_name, "is not an option", f"key=value; {self._more(ctx)}"
            ) from error

    def invoke(self, ctx: click.Context) -> None:
        """Check what stands on the line, and carry the command out."""
        words = list(ctx.params["words"])
        for index, place in enumerate(self.entry.places):
            if len(words) <= index or "=" in words[index]:
                raise ConfigError(place.name, "is missing", self._usage(ctx))
        count = len(self.entry.places)
        if words[count:] and not self.entry.keys:
            raise ConfigError(words[count], "is one argument too many", self._usage(ctx))
        overrides = parse_overrides(words[count:])
        from sfa_hf.distributed import clean_end, peers  # noqa: PLC0415 - torch, which --help does without

        if self.entry.distributed:
            peers.join()
        with clean_end():
            self.file.run(*words[:count], *([overrides] if self.entry.keys else []))

    def _usage(self, ctx: click.Context) -> str:
        return f"{ctx.command_path} {self.entry.usage}".strip()

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The usage line."""
        formatter.write_usage(ctx.command_path, self.entry.usage, "usage: ")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The docstring of the command's file."""
        del ctx
        formatter.write_paragraph()
        formatter.write((self.file.__doc__ or "").strip() + "\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Places, then the sections of keys."""
        del ctx
        rows = [(place.name, place.help) for place in self.entry.places]
        if rows:
            with formatter.section("arguments"):
                formatter.write_dl(rows)
        for section in self.file.sections() if self.entry.keys else ():
            with formatter.section(section.title):
                if section.about:
                    formatter.write_text(section.about)
                rows = [(key.as_written, key.description) for key in section.keys]
                if rows:
                    formatter.write_dl(rows, col_max=38)

    def _complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        del param
        return completed(self, list(ctx.params.get("words") or ()), incomplete)

    def _more(self, ctx: click.Context) -> str:
        return f"{ctx.command_path} --help lists them"
