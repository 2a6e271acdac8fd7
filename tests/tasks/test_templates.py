from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.tasks.templates import ListTemplate, MissingColumnError, NullColumnError, Template


@given(st.text(), st.text())
def test_columns_are_filled_in_as_they_are(question: str, answer: str) -> None:
    rendered = Template("Q: {{ question }}\nA: {{ answer }}").render({"question": question, "answer": answer})
    assert rendered == f"Q: {question}\nA: {answer}"


def test_template_syntax_in_a_column_stays_text() -> None:
    assert Template("{{ x }}").render({"x": "{{ y }}{% for %}", "y": "no"}) == "{{ y }}{% for %}"
    assert ListTemplate("{{ x }}").render({"x": ["{{ y }}"], "y": "no"}) == ("{{ y }}",)


def test_a_trailing_newline_of_the_template_is_kept() -> None:
    assert Template("{{ x }}\n").render({"x": "a"}) == "a\n"


@pytest.mark.parametrize("source", ["{{ gone }}", "{{ gone | trim }}", "{% if gone %}x{% endif %}"])
def test_a_missing_column_is_named(source: str) -> None:
    with pytest.raises(MissingColumnError, match=r"^gone$"):
        Template(source).render({"x": 1})


@pytest.mark.parametrize("source", ["{{ x }}", "{{ x | trim }}", "{{ x.lower() }}", "a{{ x ~ 'b' }}"])
def test_a_null_is_never_printed(source: str) -> None:
    with pytest.raises(NullColumnError, match=r"^x$"):
        Template(source).render({"x": None})


def test_a_template_may_allow_for_a_null_or_missing_column() -> None:
    template = Template("a{{ x | default('') }}{% if y is defined %}{{ y }}{% endif %}")
    assert template.render({"x": None}) == "a"
    assert template.render({"x": "b", "y": "c"}) == "abc"


@pytest.mark.parametrize(
    "source",
    [
        "{{ x.__class__.__mro__ }}",
        "{{ items.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ x / 0 }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_a_template_can_do_no_harm(source: str) -> None:
    with pytest.raises((ValueError, MissingColumnError)):
        Template(source).render({"x": 1, "items": []})


@pytest.mark.parametrize("source", ["{{ x", "{% if x %}", "{{ x | nosuchfilter }}"])
def test_a_syntax_error_is_found_before_any_row(source: str) -> None:
    with pytest.raises(ValueError, match="must be a Jinja template"):
        Template(source)


def test_a_list_is_one_template_an_item_or_one_expression() -> None:
    row = {"choices": ["a", 2], "k": "z"}
    assert ListTemplate(["{{ k }}", "no"]).render(row) == ("z", "no")
    assert ListTemplate("{{ choices }}").render(row) == ("a", "2")
    assert ListTemplate("{{ choices + [k] }}").render(row) == ("a", "2", "z")


@pytest.mark.parametrize("value", ["text", 3, ["a", None], {"a": 1}])
def test_an_expression_that_is_no_list_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="yields"):
        ListTemplate("{{ x }}").render({"x": value})


def test_an_expression_names_missing_and_null_columns() -> None:
    with pytest.raises(MissingColumnError, match=r"^x$"):
        ListTemplate("{{ x }}").render({})
    with pytest.raises(NullColumnError, match=r"^x$"):
        ListTemplate("{{ x }}").render({"x": None})


@pytest.mark.parametrize("source", ["choices", "{{ a }} {{ b }}", "{{ a +  }}"])
def test_a_single_template_for_a_list_must_be_one_expression(source: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        ListTemplate(source)
