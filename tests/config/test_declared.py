"""Every option is declared once: callback, method, config and help read the same declaration."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import TrainingArguments

from sfa_hf import EMACallback, EWCCallback, L2Callback, PullCallback, SFACallback
from sfa_hf.config.declared import REQUIRED, checked, options_of
from sfa_hf.config.options import Beta, Choice, Flag, MergeEvery, Pattern, Seed
from sfa_hf.correction import correct
from sfa_hf.errors import ConfigError
from sfa_hf.methods import Method, known_methods, make_method
from sfa_hf.methods.taken import GIVEN, From
from sfa_hf.rules import known_rules

CALLBACKS = (EMACallback, EWCCallback, L2Callback, PullCallback, SFACallback)
METHODS = sorted(known_methods())

Words = Annotated[str, Choice(("a", "b"))]


@checked
def example(
    beta: Beta, words: Annotated[str, Choice(("a", "b"))] = "a", *, every: MergeEvery | None = None
) -> Any:
    r"""An example.

    Args:
        beta: \beta in [0, 1], the weight of
            \theta_o and \bar F.
        words: one of :data:`nowhere.WORDS`, or ``b``.
    """
    return beta, words, every


def test_a_function_is_read() -> None:
    beta, words, every = options_of(example)
    assert (beta.key, beta.type, beta.default, beta.symbol) == ("beta", "number", REQUIRED, "β")
    assert beta.help == "β in [0, 1], the weight of θ_o and F̄."
    assert (words.choices, words.help, words.default) == (("a", "b"), "one of WORDS, or `b`.", "a")
    assert (every.type, every.default, every.help) == ("whole number", None, "")


class _Base(BaseModel):
    """A base.

    Attributes:
        first: of the base.
        second: of the base too.
    """

    model_config = ConfigDict(extra="forbid")
    first: int = 1
    second: list[str] = []


class _Model(_Base):
    r"""A model.

    Attributes:
        second: written anew.
        lambda_: \lambda.
    """

    lambda_: float = Field(0.5, alias="lambda", gt=0)
    kind: Literal["x", "y"] | None = None


def test_a_model_is_read_with_its_bases() -> None:
    found = {option.key: option for option in options_of(_Model)}
    assert list(found) == ["first", "second", "lambda", "kind"]
    assert (found["first"].help, found["second"].help) == ("of the base.", "written anew.")
    assert (found["second"].type, found["lambda"].symbol) == ("list of text", "λ")
    assert (found["kind"].choices, found["kind"].type) == (("x", "y"), "word")


def test_training_arguments_are_read() -> None:
    found = {option.key: option for option in options_of(TrainingArguments)}
    assert found["learning_rate"].type == "number"
    assert "learning rate" in found["learning_rate"].help
    assert found["output_dir"].default is None
    assert "_n_gpu" not in found


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"beta": 2}, "beta: 2 is not the weight"),
        ({"beta": None}, "beta: None is not the weight"),
        ({"beta": [0.5]}, r"beta: \[0.5\] is not the weight"),
        ({"beta": 0.5, "words": "c"}, r"words: unknown value 'c' \(known: a, b\)"),
        ({"beta": 0.5, "words": ["a"]}, r"words: unknown value \['a'\]"),
        ({"beta": 0.5, "every": 1.0}, "every: 1.0 is not a number of steps"),
    ],
)
def test_a_wrong_argument_is_a_config_error_by_its_name(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        example(**arguments)


def test_right_arguments_pass_and_unknown_ones_are_pythons_own() -> None:
    assert example(1, every=None) == (1.0, "a", None)
    with pytest.raises(TypeError, match="bet"):
        example(bet=1)


class _InConfig(BaseModel):
    beta: Beta = 0.5
    every: MergeEvery | None = None
    flag: Flag = False
    include: Pattern | None = None
    seed: Seed = 0


def test_a_config_turns_text_into_numbers_and_no_truth_into_any() -> None:
    assert _InConfig(beta="1e-1", every="3", flag="true").model_dump() == {
        "beta": 0.1,
        "every": 3,
        "flag": True,
        "include": None,
        "seed": 0,
    }
    for wrong in (
        {"beta": True},
        {"every": True},
        {"seed": True},
        {"seed": 2**32},
        {"include": "("},
        {"beta": "x"},
    ):
        with pytest.raises(ValidationError):
            _InConfig(**wrong)


@pytest.mark.parametrize("callback", CALLBACKS, ids=lambda each: each.__name__)
def test_every_argument_of_a_callback_has_a_check_that_its_default_passes_and_help(callback: Any) -> None:
    for option in options_of(callback):
        assert option.check is not None, option.name
        assert option.help, option.name
        if option.default not in (None, REQUIRED):
            assert option.check(option.default) == option.default


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_callbacks_options_as_they_are_declared(name: str) -> None:
    method = known_methods()[name]
    own = {option.name: option for option in options_of(method)}
    for taken in method.TAKEN:
        for field, declared in taken.options().items():
            assert own[field].text == declared.text
            assert own[field].check == declared.check
            assert own[field].type == declared.type
            expected = taken.defaults.get(declared.name, declared.default)
            assert own[field].default == expected


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_own_options_are_declared_nowhere_else(name: str) -> None:
    """An option of the same name as one of its callback, rule or function is that one."""
    method = known_methods()[name]
    taken = {field for each in method.TAKEN for field in each.options()}
    own = set(method.model_fields) - taken
    for each in method.TAKEN:
        arguments = set(inspect.signature(each.source).parameters)
        assert not own & arguments, "declared in the method and in what it is built from"
    for option in options_of(method):
        assert option.help or option.name == "name", f"{option.name} has no help"


def test_a_method_that_declares_an_option_again_is_no_class() -> None:
    with pytest.raises(TypeError, match="beta is declared twice"):

        class Twice(Method, takes=From(SFACallback)):
            name: Literal["twice"] = "twice"
            beta: float = 0.5


def test_what_the_sequence_gives_is_no_option_of_a_method() -> None:
    for method in known_methods().values():
        assert not GIVEN & set(method.model_fields)


@pytest.mark.parametrize(
    "declaration",
    [*known_methods().values(), *known_rules().values(), *CALLBACKS, correct],
    ids=lambda each: each.__name__,
)
def test_help_has_no_latex_left(declaration: Any) -> None:
    for option in options_of(declaration):
        assert "\\" not in option.help


@pytest.mark.parametrize("old", ["merge_first_task", "penalise_first_task", "average_first_task"])
@pytest.mark.parametrize("name", ["sfa", "l2", "ema", "wise_ft"])
def test_old_names_of_first_task_name_the_new_one(name: str, old: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{old}: is called first_task now \(first_task: true\)"):
        make_method({"name": name, old: True})
    assert make_method({"name": name, "first_task": True}).first_training is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"name": "sfa", "rule": "fisher"}, r"^method\.rule: .*\(method\.name=sfa_fisher\)"),
        ({"name": "sfa", "power": 1.0}, r"^method\.power: is not an option of sfa .* sfa_fisher\)"),
        ({"name": "sfa", "p": 0.5, "merge_every": 3}, r"^method\.merge_every: 3 beside p = 0\.5"),
        ({"name": "sfa_fisher", "p": 0.5, "merge_every": 3}, r"^method\.merge_every: 3 beside p = 0\.5"),
        (
            {"name": "sfa_fisher", "moments": "constant", "shuffle": 1},
            r"^method\.shuffle: nothing to shuffle in 'constant' moments",
        ),
        ({"name": "sfa_fisher", "shuffle": 1.5}, r"^method\.shuffle: is 1\.5"),
        (
            {"name": "ema", "average_device": "gpu"},
            r"^method\.average_device: unknown value 'gpu' .*cpu, device",
        ),
        ({"name": "sfa", "include": "("}, r"^method\.include: '\(' is not a regular expression"),
        ({"name": "cmm", "correction_loss": "l3"}, r"^method\.correction_loss: unknown value 'l3' .*l1, l2"),
        ({"name": "swa"}, "^method.name: 'swa' is not a method .*known: cmm, dare, .*wise_ft"),
    ],
)
def test_what_cannot_be_is_refused_when_the_method_is_made(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        make_method(options)
