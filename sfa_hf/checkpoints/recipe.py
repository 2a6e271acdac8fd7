"""What to merge, and how: a YAML file, everything checked before a model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfa_hf.config.options import EXPRESSION
from sfa_hf.config.paths import UserPath
from sfa_hf.config.patterns import Pattern as Expression
from sfa_hf.config.patterns import compiled
from sfa_hf.config.pydantic_errors import as_config_error
from sfa_hf.config.shipped import find_config
from sfa_hf.config.yaml_files import read_yaml
from sfa_hf.errors import ConfigError, nearest, under
from sfa_hf.rules import MergeRule, known_rules


class ModelEntry(BaseModel):
    """One of the models to merge.

    Attributes:
        path: a folder, a Hub id, or ``builtin:pythia``, ``builtin:llama``, ``builtin:qwen``.
        fisher: its F for the rule ``fisher``: a safetensors file, or a folder of them, of the same names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: UserPath
    fisher: UserPath | None = None


class _Parameters(BaseModel):
    """What is different for the tensors that ``match``; the other keys are options of the rule."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    match: str
    copied: bool = Field(False, alias="copy")


class Sections(BaseModel):
    """The shape of a recipe.

    Attributes:
        models: to merge: folders, Hub ids, or mappings {path, fisher}.
        base: the model that task vectors are differences from.
        rule: its name and options.
        parameters: what is different for the tensors whose names match: {match, copy: true} or options.
        dtype: of the merged weights; None: as they are stored.
        vocabulary: what to do with rows of embeddings that not all models have.
        tokenizer: whether the tokenizers must be the same.
        configs: whether all that decides what is computed must be the same in the configs.
        missing: what to do with tensors that not all models have.
        config_from: the model whose config and tokenizer the result gets; None: the base, else the first.
        max_shard_size: of one safetensors file.
        threads: None: one for each core.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    models: list[UserPath | ModelEntry] = Field(min_length=1)
    base: UserPath | None = None
    rule: dict[str, Any]
    parameters: list[dict[str, Any]] = Field(default_factory=list)
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    vocabulary: Literal["same", "common", "base"] = "same"
    tokenizer: Literal["same", "any"] = "same"
    configs: Literal["same", "any"] = "same"
    missing: Literal["refuse", "copy"] = "refuse"
    config_from: UserPath | None = None
    max_shard_size: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[KMGT]B$")] = "50GB"
    threads: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class Pattern:
    """The rule for some tensors: None copies them."""

    match: Expression
    rule: MergeRule | None


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; the fields are those of ``docs/merging.md``."""

    models: tuple[ModelEntry, ...]
    base: str | None
    rule: MergeRule
    patterns: tuple[Pattern, ...]
    dtype: str | None
    vocabulary: str
    tokenizer: str
    configs: str
    missing: str
    config_from: str | None
    max_shard_size: str
    threads: int | None
    resolved: dict[str, Any]

    def rule_for(self, name: str) -> MergeRule | None:
        """The rule of the first pattern that is found in a tensor's name, else the recipe's."""
        for place, pattern in enumerate(self.patterns):
            with under(f"parameters.{place}.match"):
                if pattern.match.found_in(name):
                    return pattern.rule
        return self.rule


def read_recipe(path: str) -> dict[str, Any]:
    """The values of a recipe: a file, or the name of a shipped one. Raises ConfigError."""
    return read_yaml(find_config(path, "RECIPE", "merges"))


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a recipe.

    Raises:
        ConfigError: the first thing that is wrong, by its dotted key.
    """
    try:
        sections = Sections.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, "", Sections) from error
    models = tuple(ModelEntry(path=each) if isinstance(each, str) else each for each in sections.models)
    rule = _rule(sections.rule, "rule", len(models))
    _check_inputs(rule, sections, models)
    plain = sections.model_dump(mode="json", exclude={"models", "rule", "parameters"})
    return Recipe(
        models=models,
        base=sections.base,
        rule=rule,
        patterns=tuple(
            _pattern(each, f"parameters.{i}", sections.rule, rule, len(models))
            for i, each in enumerate(sections.parameters)
        ),
        **{key: value for key, value in plain.items() if key != "base"},
        resolved={
            "models": [model.model_dump(exclude_none=True) for model in models],
            "rule": {"name": sections.rule["name"], **rule.model_dump(mode="json", by_alias=True)},
            "parameters": sections.parameters,
            **plain,
        },
    )


def _rule(values: Mapping[str, Any], key: str, models: int) -> MergeRule:
    name = values.get("name")
    if name is None:
        raise ConfigError(f"{key}.name", "is missing", f"one of {', '.join(sorted(known_rules()))}")
    if name not in known_rules():
        hint = nearest(str(name), known_rules())
        raise ConfigError(f"{key}.name", f"there is no rule {name!r}", hint)
    return _with_options(name, {k: v for k, v in values.items() if k != "name"}, key, models)


def _with_options(name: str, options: Mapping[str, Any], key: str, models: int) -> MergeRule:
    _refuse_others_options(name, options, key)
    kind = known_rules()[name]
    try:
        rule = kind.model_validate(options)
    except ValidationError as error:
        raise as_config_error(error, key, kind) from error
    with under(key):
        rule.check(models)
    return rule


def _refuse_others_options(name: str, options: Mapping[str, Any], key: str) -> None:
    own = _options(name)
    for option in options:
        owners = [other for other in known_rules() if option in _options(other)]
        if option not in own and owners:
            right = f"one of {', '.join(owners)}; options of {name}: {', '.join(own)}"
            raise ConfigError(f"{key}.{option}", f"is not an option of {name}", right)


def _options(name: str) -> list[str]:
    return [field.alias or key for key, field in known_rules()[name].model_fields.items()]


def _check_inputs(rule: MergeRule, sections: Sections, models: tuple[ModelEntry, ...]) -> None:
    name = sections.rule["name"]
    if rule.needs_base and sections.base is None:
        raise ConfigError("base", "is missing", f"{name} works on differences from a base model")
    if rule.exactly is not None and len(models) != rule.exactly:
        right = f"{name} takes {rule.exactly}" + (" beside the base" if rule.needs_base else "")
        raise ConfigError("models", f"are {len(models)}", right)
    for i, model in enumerate(models):
        if rule.needs_importances and model.fisher is None:
            raise ConfigError(f"models.{i}.fisher", "is missing", f"{name} weights by it: {{path, fisher}}")
        if not rule.needs_importances and model.fisher is not None:
            raise ConfigError(f"models.{i}.fisher", f"is not read by {name}", "the rule fisher")
    known = [*filter(None, [sections.base]), *(model.path for model in models)]
    if sections.config_from is not None and sections.config_from not in known:
        raise ConfigError("config_from", f"{sections.config_from} is none of the models", ", ".join(known))


def _pattern(
    values: Mapping[str, Any], key: str, defaults: Mapping[str, Any], rule: MergeRule, models: int
) -> Pattern:
    try:
        parsed = _Parameters.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, key, _Parameters) from error
    with under(f"{key}.match"):
        found = compiled(EXPRESSION(parsed.match))
    options = parsed.model_extra or {}
    if "name" in options:
        raise ConfigError(f"{key}.name", "is not an option", "one rule for all tensors, or copy: true")
    if parsed.copied == bool(options):
        raise ConfigError(
            key, "has to say one thing about these tensors", "options of the rule, or copy: true"
        )
    if parsed.copied:
        return Pattern(found, None)
    own = _with_options(
        str(defaults["name"]), {**{k: v for k, v in defaults.items() if k != "name"}, **options}, key, models
    )
    if "vector" in (rule.scope, own.scope) and {"density", "threshold"} & set(options):
        right = "one for all, or rule.threshold: tensor"
        raise ConfigError(key, "sets the density of a threshold over the whole vector", right)
    return Pattern(found, own)
