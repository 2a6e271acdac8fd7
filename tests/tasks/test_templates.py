from __future__ import annotations

import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfa_hf.tasks.templates import Condition, ListTemplate, MissingColumnError, NullColumnError, Template


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


@pytest.mark.parametrize("value", ["text", 3, {"a": 1}])
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


ENDLESS = {
    "a long text": "{{ 'x' * 3000000000 }}",
    "loops in loops": "{% set n = 10 ** 6 %}" + "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "a tower of powers": "{{ 10 ** (10 ** 9) }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a long range": "{{ range(10 ** 9) | list }}",
    "a wide filter": "{{ x | center(3000000000) }}",
    "a wide method": "{{ x.ljust(3000000000) }}",
    "a wide format": "{{ '%3000000000d' % n }}",
    "a format with a width": "{{ '{:3000000000}'.format(x) }}",
    "doubling": "{% set t = namespace(a='xx') %}{% for i in range(60) %}"
    "{% set t.a = t.a ~ t.a %}{% endfor %}{{ t.a }}",
    "growing replacements": "{{ x" + " | replace('x', 'xxxxxxxxxx')" * 12 + " }}",
    "joins of joins": "{{ x" + " | join('xxxxxxxxxxxxxxxxxx')" * 12 + " }}",
    "a long text that is small enough": "{{ 'x' * 30000000 }}",
    "many words": "{{ lipsum(n=100000000) }}",
    "parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "additions": "{{ " + "x + " * 50_000 + "x }}",
    "blocks": "{% if x %}" * 5_000 + "{% endif %}" * 5_000,
}


@pytest.mark.parametrize("case", ENDLESS)
def test_no_template_takes_more_than_its_share(case: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ValueError, match=r"takes|needs|nested|fails|characters") as caught:
        Template(ENDLESS[case]).render({"x": "x" * 20, "n": 1})
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_the_next_row_is_rendered_after_one_that_took_too_much() -> None:
    template = Template("{{ 'x' * n }}")
    with pytest.raises(ValueError, match="needs more than 400 MiB"):
        template.render({"n": 10**10})
    assert template.render({"n": 3}) == "xxx"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for i in items %}{{ i }};{% endfor %}", "1;\ud800;"),
        ("{{ items | map('string') | join('/') }}", "1/\ud800"),
        ("{{ x.replace('a', 'bb') }}", "bb"),
    ],
)
def test_a_template_that_is_rendered_apart_gives_what_jinja_gives(source: str, expected: str) -> None:
    assert Template(source).render({"x": "a", "items": [1, "\ud800"]}) == expected


@pytest.mark.parametrize("source", ["{% for i in x %}{{ i }}{% endfor %}", "{{ x * 2 }}"])
def test_a_template_that_is_rendered_apart_names_missing_and_null_columns(source: str) -> None:
    with pytest.raises(MissingColumnError, match=r"^x$"):
        Template(source).render({})
    with pytest.raises(NullColumnError, match=r"^x$"):
        Template(source).render({"x": None})


def test_lists_and_conditions_are_rendered_apart_too() -> None:
    assert ListTemplate("{{ range(n) | list }}").render({"n": 2}) == ("0", "1")
    assert Condition("range(n) | list").holds({"n": 2})
    with pytest.raises(ValueError, match="processor time"):
        Condition("10 ** (10 ** 9) > x").holds({"x": 1})
