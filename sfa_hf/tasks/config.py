"""What a task file may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sfa_hf.config.paths import UserPath
from sfa_hf.config.patterns import compiled
from sfa_hf.errors import nearest
from sfa_hf.tasks.code import CodeScoring
from sfa_hf.tasks.few_shot import FewShot
from sfa_hf.tasks.scorings import known_scorings
from sfa_hf.tasks.templates import Condition, ListTemplate, Template

Scalar = str | int | float | bool | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSource(_Strict):
    """Rows of a task: which ones, and how they become prompts and targets.

    Attributes:
        path: a file of rows, relative to the data folder: ``.json``, ``.jsonl``, ``.ndjson``, ``.csv``,
            ``.tsv``, ``.txt``, ``.parquet`` or ``.arrow``, all but the last two also packed as ``.gz``,
            ``.bz2``, ``.xz``, ``.zst`` or ``.zip``; several by a pattern such as ``part-*.csv``; a folder of
            files; a folder that ``save_to_disk`` wrote; a Hub id; ``shipped:FILE``, a file that comes with
            the package, beside its tasks; or ``generated:math``, ``generated:law``, ``generated:code``.
        name: the Hub dataset's configuration.
        split: which rows: a split, or a part such as ``train[:90%]``. A file's only split is ``train``;
            generated rows have ``train`` and ``test``.
        revision: the Hub dataset's commit, branch or tag.
        columns: names of a CSV file's columns, where its first line is a row and no header.
        separator: between the cells of a CSV file; null: a comma in ``.csv``, a tab in ``.tsv``.
        field: key of the list of rows in a JSON object; null: the only list of objects in it.
        where: keep the rows whose column has this value, or one of these values.
        only_if: Jinja expression over the columns, e.g. ``"not unfair"``: keep the rows for which it holds.
            ``index`` is a row's position from 0, ``loop.index`` from 1.
        max_chars: keep the rows whose prompt and target together have at most this many characters.
        shuffle: take the rows in a random order drawn from ``seed`` (before ``limit``).
        limit: keep the first so many rows.
        rows: how many rows to generate.
        seed: of ``shuffle`` and of generated rows.
        prompt: template for these rows instead of the task's.
        target: likewise.
        choices: likewise.
        messages: likewise the column of their conversations.
    """

    path: UserPath = Field(min_length=1)
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    columns: list[str] | None = Field(default=None, min_length=1)
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    field: str | None = None
    where: dict[str, Scalar | list[Scalar]] = {}
    only_if: str | None = None
    max_chars: int | None = Field(default=None, gt=0)
    shuffle: bool = False
    limit: int | None = Field(default=None, gt=0)
    rows: int | None = Field(default=None, gt=0)
    seed: int = 0
    prompt: str | None = None
    target: str | None = None
    choices: list[str] | str | None = None
    messages: str | None = Field(default=None, min_length=1)

    @field_validator("prompt", "target", "choices")
    @classmethod
    def _templates_parse(cls, value: list[str] | str | None, info: Any) -> list[str] | str | None:
        check_template(value, of_list=info.field_name == "choices")
        return value

    @field_validator("only_if")
    @classmethod
    def _condition_parses(cls, value: str | None) -> str | None:
        if value is not None:
            Condition(value)
        return value

    @model_validator(mode="after")
    def _rows_are_of_generated_data(self) -> DataSource:
        if self.is_generated and self.rows is None:
            raise ValueError("generated data needs rows: how many to generate")
        if not self.is_generated and self.rows is not None:
            raise ValueError("rows belongs to generated data; use limit for the others")
        return self

    @property
    def is_generated(self) -> bool:
        return self.path.startswith("generated:")


class Scoring(_Strict):
    """How a model's answers to the held-out prompts become one number, higher is better.

    Attributes:
        kind: "generate": greedy continuation compared with the target; "choice": the choice with the highest
            log-likelihood; "perplexity": minus the mean negative log-likelihood of the target's tokens;
            "code": programs that the model writes are run against their tests.
        metric: one of the kind's ``METRICS``; the first of them by default.
        extract: regular expression searched in output and target before they are compared: the last match
            counts, its first group that took part if it has groups; of several expressions the first that
            finds something counts. For code, what it finds in the output is the completion.
        compare: how two answers are compared: as "text", up to white space; as a "number": 51, 51.0 and
            $51.00 are equal; or as "latex", expressions, by math-verify: x + 1 and 1 + x are equal. A target
            that is no number, or no expression, is an error.
        units: words or signs that do not count beside a number, e.g. ``["%", "dollars"]``.
        also_extract: further patterns by name, for the output alone; each gives a metric
            ``exact_match_NAME`` beside the primary one.
        ignore: regular expression whose matches do not count when two answers are compared, e.g. ``[,$]``.
        normalise: divide a choice's log-likelihood by its number of tokens or bytes.
        positive: the class that F1 is about.
        max_new_tokens: where generation stops at the latest.
        stop: generation also ends before the first of these strings.
        code: of kind code: how programs are made and tested.
    """

    kind: str
    metric: str
    extract: str | list[str] | None = None
    compare: Literal["text", "number", "latex"] = "text"
    units: list[str] = []
    also_extract: dict[str, str] = {}
    ignore: str | None = None
    normalise: Literal["none", "tokens", "bytes"] = "none"
    positive: str | None = None
    max_new_tokens: int = Field(default=64, gt=0)
    stop: list[str] = []
    code: CodeScoring | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_metric(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("metric") is None and data.get("kind") in known_scorings():
            return {**data, "metric": known_scorings()[data["kind"]].METRICS[0]}
        return data

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, value: str) -> str:
        if value not in known_scorings():
            raise ValueError(nearest(value, known_scorings()))
        return value

    @field_validator("extract", "ignore")
    @classmethod
    def _pattern_compiles(cls, value: str | list[str] | None) -> str | list[str] | None:
        for each in value if isinstance(value, list) else [value or ""]:
            check_pattern(each)
        return value

    @field_validator("also_extract")
    @classmethod
    def _patterns_compile(cls, value: dict[str, str]) -> dict[str, str]:
        for pattern in value.values():
            check_pattern(pattern)
        return value

    @model_validator(mode="after")
    def _metric_fits_kind(self) -> Scoring:
        metrics = known_scorings()[self.kind].METRICS
        if self.metric not in metrics:
            raise ValueError(f"metrics of kind {self.kind}: {', '.join(metrics)}")
        if (self.metric == "f1") != (self.positive is not None):
            raise ValueError("metric f1 needs positive, the class it is about; no other metric has one")
        if self.also_extract and not (self.kind == "generate" and self.extract is not None):
            raise ValueError("also_extract stands beside the extract of kind generate")
        if self.compare != "text" and (self.kind != "generate" or self.metric != "exact_match"):
            raise ValueError(f"compare: {self.compare} is for kind generate and exact_match")
        if self.units and self.compare != "number":
            raise ValueError("units stand beside compare: number")
        if (self.kind == "code") != (self.code is not None):
            raise ValueError("kind code needs a code section with its test; no other kind has one")
        return self


class TaskConfig(_Strict):
    """One task: its rows, its templates, its score.

    Attributes:
        name: under which it stands in results and folder names.
        prompt: Jinja template over a row's columns.
        target: likewise; what the model learns to say after the prompt. The two are tokenised apart, so a
            space between them belongs to one of them.
        messages: column of a conversation, instead of prompt and target: a list of ``{role, content}`` or
            ``{from, value}``. The tokenizer's chat template writes it; the last answer is the target.
        choices: the answers to choose from: a list of templates, or one expression that yields a row's list,
            e.g. ``"{{ endings }}"``. The target must be one of them.
        train: where the training rows come from; a task that is only scored needs none.
        heldout: where the rows that are scored come from.
        scoring: how.
        few_shot: worked examples, drawn from the training rows, before each held-out prompt.
        training: TrainingArguments fields for this task alone.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    prompt: str | None = None
    target: str | None = None
    messages: str | None = Field(default=None, min_length=1)
    choices: list[str] | str | None = None
    train: list[DataSource] = []
    heldout: list[DataSource] = Field(min_length=1)
    scoring: Scoring
    few_shot: FewShot = FewShot()
    training: dict[str, Any] = {}

    @field_validator("prompt", "target", "choices")
    @classmethod
    def _templates_parse(cls, value: list[str] | str | None, info: Any) -> list[str] | str | None:
        check_template(value, of_list=info.field_name == "choices")
        return value

    @model_validator(mode="after")
    def _rows_become_text(self) -> TaskConfig:
        if self.messages is not None and (self.prompt is not None or self.target is not None):
            raise ValueError("messages stands instead of prompt and target")
        for source in [*self.train, *self.heldout]:
            if self.messages_of(source) is None and None in self.templates_of(source):
                raise ValueError("needs prompt and target, or messages, the column of its conversations")
        if self.few_shot.count and any(map(self.messages_of, self.heldout)):
            raise ValueError("few_shot puts examples before a prompt; conversations have none")
        return self

    def messages_of(self, source: DataSource) -> str | None:
        """The column of a source's conversations; None where its rows are prompt and target."""
        if source.messages is not None or source.prompt is not None or source.target is not None:
            return source.messages
        return self.messages

    def templates_of(self, source: DataSource) -> tuple[str | None, str | None]:
        """Prompt and target of a source."""
        prompt = self.prompt if source.prompt is None else source.prompt
        return prompt, self.target if source.target is None else source.target

    @model_validator(mode="after")
    def _choice_has_choices(self) -> TaskConfig:
        given = self.choices is not None or all(source.choices is not None for source in self.heldout)
        if self.scoring.kind == "choice" and not given:
            raise ValueError("scoring by choice needs choices")
        return self


def check_pattern(value: str) -> None:
    """Raise ValueError, with what is wrong, if a regular expression does not compile."""
    compiled(value)


def check_template(value: list[str] | str | None, *, of_list: bool) -> None:
    """Raise ValueError, with what is wrong, if a template does not parse."""
    if value is None:
        return
    if of_list:
        ListTemplate(value)
    elif isinstance(value, str):
        Template(value)
