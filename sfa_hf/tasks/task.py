"""A task: training rows and held-out rows, each a prompt and its target."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.config.shipped import find_config
from sfa_hf.config.yaml_files import read_yaml
from sfa_hf.errors import ConfigError, under
from sfa_hf.tasks.config import DataSource, Scoring, TaskConfig
from sfa_hf.tasks.conversations import Message, answer_of, as_text, conversation
from sfa_hf.tasks.selection import PlacedRow
from sfa_hf.tasks.sources import read_source
from sfa_hf.tasks.templates import ListTemplate, MissingColumnError, NullColumnError, Template


@dataclass(frozen=True)
class Row:
    """One rendered row.

    Attributes:
        prompt: what the model is given.
        target: what it should continue with.
        choices: the answers to choose from; empty for a training row and for tasks without choices.
        index: position in the task's list of held-out (or training) rows.
        messages: a conversation that ends with the target; () for a prompt and its target.
        columns: of a held-out row whose answer is a program: what its program and its test are made of.
    """

    prompt: str
    target: str
    choices: tuple[str, ...] = ()
    index: int = 0
    messages: tuple[Message, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def content(self) -> str:
        """Prompt and target, in one form for what reads the same."""
        return " ".join(unicodedata.normalize("NFKC", f"{self.prompt} {self.target}").casefold().split())


class Task:
    """A task whose rows are read on first use and kept.

    Args:
        config: what the task file says.
        data_dir: folder that the local paths in it are relative to.
    """

    def __init__(self, config: TaskConfig, data_dir: Path) -> None:
        self.config = config
        self.name = config.name
        self._data_dir = data_dir

    def scored_by(self, scoring: Scoring) -> Task:
        """The same rows, scored in another way."""
        return Task(self.config.model_copy(update={"scoring": scoring}), self._data_dir)

    def check(self, few_shot: int | None = None) -> None:
        """Read and render every row, so that a bad file is found before any training.

        Args:
            few_shot: as for :meth:`heldout_rows`.

        Raises:
            ConfigError: one line about the first thing that is wrong.
        """
        if not self._train:
            right = "at least one source; sfa-hf evaluate scores a task without training rows"
            raise ConfigError(f"{self.name}.train", "names no rows to train on", right)
        self._after_examples(self._chosen(None), few_shot)

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the rendered rows of each source, by "train.0", "heldout.0" and so on."""
        parts = {"train": self._train, "heldout": self._heldout}
        return {f"{part}.{i}": _digest(rows) for part in parts for i, rows in enumerate(parts[part])}

    def source(self, name: str) -> str:
        """The path, as the task file gives it, of a source by its name in :meth:`fingerprints`."""
        part, position = name.split(".")
        return {"train": self.config.train, "heldout": self.config.heldout}[part][int(position)].path

    def train_rows(self) -> list[Row]:
        """All training rows, sources one after another."""
        return [row for rows in self._train for row in rows]

    def heldout_rows(self, limit: int | None = None, few_shot: int | None = None) -> list[Row]:
        """The held-out rows, or a fixed random subset that takes the same share of every source.

        A smaller limit's subset is part of a larger one's.

        Args:
            limit: at most so many rows; None: all.
            few_shot: how many worked examples stand before each prompt; None: as the task file says.

        Raises:
            ConfigError: the rows cannot be had, or there are fewer training rows than examples wanted.
        """
        return self._after_examples(self._chosen(limit), few_shot)

    def _chosen(self, limit: int | None) -> list[Row]:
        if limit is None:
            return [row for rows in self._heldout for row in rows]
        ranked = [pair for rows in self._heldout for pair in _spread(rows)]
        chosen = [row for _, row in sorted(ranked, key=lambda pair: pair[0])[:limit]]
        return sorted(chosen, key=lambda row: row.index)

    def _after_examples(self, rows: list[Row], count: int | None) -> list[Row]:
        drawing = self.config.few_shot
        if count is not None:
            drawing = drawing.model_copy(update={"count": count})
        if drawing.count == 0:
            return rows
        if any(row.messages for row in rows):
            problem = f"is {drawing.count}, and rows of {self.name} are conversations, which take no examples"
            raise ConfigError("evaluation.few_shot", problem, "0")
        trained = self.train_rows()
        examples, contents = [row.prompt + row.target for row in trained], [row.content for row in trained]
        if len(examples) < drawing.count:
            problem = f"is {drawing.count}, and the task has {len(examples)} training rows"
            raise ConfigError(f"{self.name}.few_shot.count", problem, "as many examples as rows, or fewer")
        with under(self.name):
            return [
                replace(row, prompt=drawing.prefix(examples, contents, row.index, row.content) + row.prompt)
                for row in rows
            ]

    @cached_property
    def _train(self) -> list[list[Row]]:
        return _numbered([self._rows("train", i, source) for i, source in enumerate(self.config.train)])

    @cached_property
    def _heldout(self) -> list[list[Row]]:
        return _numbered([self._rows("heldout", i, source) for i, source in enumerate(self.config.heldout)])

    def _rows(self, part: str, position: int, source: DataSource) -> list[Row]:
        key = f"{self.name}.{part}.{position}"
        render = _Renderer(self.config, source, key, heldout=part == "heldout")
        rendered = map(render, read_source(source, self._data_dir, key))
        short = (row for row in rendered if _length(row) <= (source.max_chars or _length(row)))
        rows = list(islice(short, source.limit))
        if not rows:
            raise ConfigError(
                key, f"{source.path} yields no rows", "at least one row left by where and max_chars"
            )
        return rows


class _Renderer:
    """Turns a source's columns into a :class:`Row`; says which row and column fails."""

    def __init__(self, config: TaskConfig, source: DataSource, key: str, *, heldout: bool) -> None:
        self._key = key
        self._messages = config.messages_of(source)
        prompt, target = config.templates_of(source)
        self._prompt, self._target = Template(prompt or ""), Template(target or "")
        choices = config.choices if source.choices is None else source.choices
        self._choices = ListTemplate(choices) if heldout and choices is not None else None
        code = config.scoring.code if heldout else None
        self._code = {"program": Template(code.program), "test": Template(code.test)} if code else {}

    def __call__(self, row: PlacedRow) -> Row:
        if self._messages is None:
            prompt, target = (
                self._render(field, template, row)
                for field, template in (("prompt", self._prompt), ("target", self._target))
            )
            return self._scored(Row(prompt, target), row)
        messages = self._conversation(self._messages, row)
        return self._scored(Row(as_text(messages[:-1]), answer_of(messages[-1]), messages=messages), row)

    def _conversation(self, column: str, row: PlacedRow) -> tuple[Message, ...]:
        key = f"{self._key}.messages"
        if column not in row.columns:
            right = f"its columns: {', '.join(row.columns)}"
            raise ConfigError(key, f"{row.place} has no column '{column}'", right)
        try:
            return conversation(row.columns[column])
        except ValueError as err:
            right = "a list of {role, content} or {from, value} with an answer of the assistant"
            raise ConfigError(key, f"{row.place}: '{column}' {err}", right) from None

    def _scored(self, rendered: Row, row: PlacedRow) -> Row:
        """With what scoring needs of a held-out row."""
        target = rendered.target
        if self._code:
            columns = {**row.columns, "completion": target}
            for name, template in self._code.items():  # seen to render before anything is trained
                self._render(name, template, replace(row, columns=columns))
            return replace(rendered, columns=columns)
        if self._choices is None:
            return rendered
        choices = self._render("choices", self._choices, row)
        if target not in choices:
            right = f"one of its choices: {', '.join(map(repr, choices))}"
            raise ConfigError(f"{self._key}.target", f"{row.place} has target {target!r:.60}", right)
        return replace(rendered, choices=choices)

    def _render(self, field: str, template: Any, row: PlacedRow) -> Any:
        key = f"{self._key}.{field}"
        try:
            return template.render(row.columns)
        except MissingColumnError as err:
            right = f"its columns: {', '.join(row.columns)}"
            raise ConfigError(key, f"{row.place} has no column '{err}'", right) from None
        except NullColumnError as err:
            right = "a value in every row, or a template that allows for null, e.g. {{ x | default('') }}"
            raise ConfigError(key, f"{row.place} has null in column '{err}'", right) from None
        except ValueError as err:
            right = "a template that fits every row"
            raise ConfigError(key, f"{row.place}: the template {err}", right) from None


def _digest(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        values = [row.prompt, row.target, row.choices, row.columns, row.messages]
        digest.update(json.dumps(values, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()


def _length(row: Row) -> int:
    return len(row.prompt) + len(row.target)


def _numbered(sources: list[list[Row]]) -> list[list[Row]]:
    count = iter(range(sum(map(len, sources))))
    return [[replace(row, index=next(count)) for row in rows] for rows in sources]


def _spread(rows: Sequence[Row]) -> Iterator[tuple[float, Row]]:
    """Give the rows, in a fixed random order, evenly spaced places in (0, 1)."""
    order = list(rows)
    random.Random(len(order)).shuffle(order)  # noqa: S311 - a reproducible order, not a secret
    for place, row in enumerate(order):
        yield (place + 0.5) / len(order), row


def load_task(spec: str | Mapping[str, Any], *, data_dir: Path, search: Sequence[Path] = ()) -> Task:
    """A task by name, by file or as a mapping.

    Args:
        spec: a name ("math", "demo/math") or path, as :func:`sfa_hf.config.shipped.find_config` finds it, or
            what such a file would say.
        data_dir: folder that the local data files of the task are relative to.
        search: folders of task files that come before ``./configs/tasks`` and the shipped ones.

    Raises:
        ConfigError: no such task, or the file says something wrong. No row is read yet.
    """
    if isinstance(spec, str):
        path = find_config(spec, "sequence", "tasks", beside=search)
        return Task(
            _validate(read_yaml(path, "a mapping with name, prompt, target, ..."), f"{path}"), data_dir
        )
    return Task(_validate(spec, f"task {spec.get('name', '')}".strip()), data_dir)


def _validate(content: Any, key: str) -> TaskConfig:
    if not isinstance(content, Mapping):
        raise ConfigError(
            key, f"holds a {type(content).__name__}", "a mapping with name, prompt, target, ..."
        )
    try:
        return TaskConfig.model_validate(dict(content))
    except ValidationError as err:
        raise as_config_error(err, key, TaskConfig) from err
