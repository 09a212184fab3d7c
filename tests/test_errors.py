"""Errors for users: what came, what was expected, what to do next."""

from __future__ import annotations

import inspect

import pytest

from restnet_search import errors
from restnet_search.errors import RestnetError, did_you_mean

USER_ERRORS = [
    error
    for error in vars(errors).values()
    if inspect.isclass(error) and issubclass(error, RestnetError) and error is not RestnetError
]


def test_the_message_has_a_line_for_each_part() -> None:
    error = RestnetError("It came.", expected="this", hint="do that")
    assert str(error) == "It came.\nExpected: this\nNext: do that"
    assert (error.problem, error.expected, error.hint) == ("It came.", "this", "do that")


def test_parts_that_say_nothing_are_left_out() -> None:
    assert str(RestnetError("It came.")) == "It came."
    assert str(RestnetError("It came.", hint="do that")) == "It came.\nNext: do that"


@pytest.mark.parametrize("error", USER_ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_caught_by_the_root_and_exits_with_2(error: type[RestnetError]) -> None:
    assert error.exit_code == 2
    assert error.__name__ in errors.__all__
    with pytest.raises(RestnetError, match="came"):
        raise error("It came.", expected="this")


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("modle", "name, model (did you mean 'model'?)"),
        ("zzz", "name, model"),
        ("", "name, model"),
    ],
)
def test_did_you_mean_lists_all_and_names_the_closest(name: str, phrase: str) -> None:
    assert did_you_mean(name, ["name", "model"]) == phrase


def test_did_you_mean_takes_any_iterable() -> None:
    assert did_you_mean("b", iter({"a": 1, "b": 2})) == "a, b (did you mean 'b'?)"
