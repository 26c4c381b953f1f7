"""The quals of a scan as typed questions: parsed, checked, and kept as they came for the echo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from math import isfinite
from typing import Protocol, TypeVar

from tinydancer.errors import InvalidInput, InvalidText, MissingInput, NumberOutOfRange, TooLarge
from tinydancer.tables import text
from tinydancer.teams.formation import MOST_AGENTS
from tinydancer_fdw.contract import GROUPINGS, OBJECTIVES, STRATEGIES, Column, Table
from tinydancer_fdw.frames import ANY, Input, Value

T = TypeVar("T")

MAX_TOP_K = 10_000
MAX_TOKENS = 10_000_000
MAX_LIST = 10_000
MAX_NAME = 1_000
MAX_KEY = 256


@dataclass(frozen=True)
class Argument:
    """One value of an input: as the engine uses it, and the text form that rows echo."""

    value: object
    echo: str


@dataclass(frozen=True)
class Question:
    """One combination of the optional inputs, and the texts it is asked of.

    `arguments` has the optional inputs that were given, by column. `texts` are the text forms of
    the required input's values, each once, in the order given; one empty text where the table
    needs none. `lists` are the elements of each where the required input is an array.
    """

    arguments: Mapping[str, Argument]
    key: str | None
    texts: tuple[str, ...]
    lists: tuple[tuple[str, ...], ...] = ()

    def text(self, column: str) -> str | None:
        """The value of a text input, or None."""
        return self._value(column, str)

    def number(self, column: str) -> float | None:
        """The value of a double precision input, or None."""
        return self._value(column, float)

    def integer(self, column: str) -> int | None:
        """The value of an integer input, or None."""
        return self._value(column, int)

    def names(self, column: str) -> tuple[str, ...]:
        """The elements of a text[] input; none where it was not given."""
        return self._value(column, tuple) or ()

    def _value(self, column: str, kind: type[T]) -> T | None:
        argument = self.arguments.get(column)
        if argument is None:
            return None
        if not isinstance(argument.value, kind):
            raise TypeError(f"{column} is a {type(argument.value).__name__}")
        return argument.value


class Limits(Protocol):
    """How much may be asked at once."""

    @property
    def max_text_bytes(self) -> int:
        """Longest text taken, in bytes of UTF-8."""

    @property
    def max_batch(self) -> int:
        """Most requests in one scan."""


def questions(table: Table, inputs: Iterable[Input], limits: Limits) -> Iterator[Question]:
    """What the inputs of a scan ask, checked in full before the first question is answered.

    Lists multiply: one question for each combination of the optional inputs, in the order of the
    columns of the contract, the last of them varying fastest; all texts of one before the next.
    NULLs in a list ask nothing, nor does an input that equals NULL. An input given twice must
    satisfy both. Raises MissingInput, InvalidInput, InvalidText, NumberOutOfRange, TooLarge.
    """
    given: dict[str, list[Argument]] = {}
    for item in inputs:
        column = table.column(item.column)
        if column is None or not column.input:
            known = ", ".join(column.name for column in table.inputs) or "none"
            raise InvalidInput(
                f"{table.name} has no input {item.column!r}", hint=f"Its inputs: {known}."
            )
        values = item.value if item.match == ANY else [item.value]
        arguments = _arguments(table, column, values, limits.max_text_bytes)
        if column.name in given:
            both = {argument.echo for argument in arguments}
            arguments = [argument for argument in given[column.name] if argument.echo in both]
        given[column.name] = arguments
    key = table.key
    if key is not None and key not in given:
        raise MissingInput(
            f"{table.name} needs a value for {key}",
            hint=f"Add WHERE {key} = '...' or {key} = ANY(...), or join it to a column of text.",
        )
    keys = given.pop(key) if key is not None else [Argument("", "")]
    names = [column.name for column in table.inputs if column.name in given]
    # An array is as many requests as it has elements.
    count = sum(len(k.value) if isinstance(k.value, tuple) else 1 for k in keys)
    for name in names:
        count *= len(given[name])
    if count > limits.max_batch:
        raise TooLarge(
            f"{count} requests in one scan of {table.name} are over the limit of "
            f"{limits.max_batch}",
            hint="Ask in several statements, or raise max_batch in tinydancer.settings.",
        )
    return _combine(key, keys, names, [given[name] for name in names])


def _combine(
    key: str | None, keys: list[Argument], names: list[str], choices: list[list[Argument]]
) -> Iterator[Question]:
    texts = tuple(argument.echo for argument in keys)
    lists = tuple(argument.value for argument in keys if isinstance(argument.value, tuple))
    if texts:
        for combination in product(*choices):
            yield Question(dict(zip(names, combination, strict=True)), key, texts, lists)


def _arguments(table: Table, column: Column, values: Value, max_text_bytes: int) -> list[Argument]:
    """The distinct arguments of a qual, in their order, without NULLs."""
    if not isinstance(values, list):
        raise InvalidInput(f"{column.name} matches any of a list, but was given none")
    arguments: dict[str, Argument] = {}
    for value in values:
        if value is None:
            continue
        argument = _argument(table, column, value, max_text_bytes)
        arguments.setdefault(argument.echo, argument)
    return list(arguments.values())


def _argument(
    table: Table, column: Column, value: str | list[Value], max_text_bytes: int
) -> Argument:
    if column.type == "text[]":
        names = (
            _texts(column.name, value, max_text_bytes)
            if column.required
            else _names(column.name, value)
        )
        return Argument(names, text.array(names))
    if not isinstance(value, str):
        raise InvalidInput(f"{column.name} is one {column.type}, but was given an array")
    if column.required and column.type == "text":
        _check_text(column.name, value, max_text_bytes)
        return Argument(value, value)
    return Argument(CHECKS[column.name](column.name, value), value)


def _check_text(name: str, value: str, max_bytes: int) -> None:
    if not value.strip():
        raise InvalidInput(
            f"{name} is empty",
            detail=f"It is {value[:40]!r}: there is nothing to decide about.",
            hint=f"Leave such rows out, as in WHERE {name} <> '' before the join.",
        )
    if "\0" in value:
        raise InvalidText(
            f"{name} has a NUL character at position {value.index(chr(0)) + 1}",
            hint="PostgreSQL's text has no place for it: remove it.",
        )
    # A character has at most four bytes; the count itself is only made where it could matter.
    if len(value) * 4 > max_bytes and (size := len(value.encode())) > max_bytes:
        raise TooLarge(
            f"{name} has {size} bytes, over the limit of {max_bytes}",
            hint="Shorten it, or raise max_text_bytes in tinydancer.settings.",
        )


def _texts(column: str, value: str | list[Value], max_bytes: int) -> tuple[str, ...]:
    """The texts of a required array; how many may be is a matter of max_batch."""
    texts = tuple(_element(column, element) for element in _list(column, value))
    for place, element in enumerate(texts, 1):
        _check_text(f"{column}[{place}]", element, max_bytes)
    return texts


def _names(column: str, value: str | list[Value]) -> tuple[str, ...]:
    values = _list(column, value)
    if len(values) > MAX_LIST:
        raise TooLarge(
            f"{column} has {len(values)} elements, over the limit of {MAX_LIST}",
            hint="Leave out what is there twice, or ask by fewer names.",
        )
    return tuple(_name(column, _element(column, element)) for element in values)


def _list(column: str, value: str | list[Value]) -> list[Value]:
    if not isinstance(value, list):
        raise InvalidInput(
            f"{column} = {value[:80]!r} is not an array of texts",
            hint=f"Write {column} = ARRAY['…', '…'].",
        )
    return value


def _element(column: str, element: Value) -> str:
    if element is None:
        raise InvalidInput(
            f"{column} has a NULL in it", hint=f"array_remove({column}, NULL) leaves it out."
        )
    if isinstance(element, list):
        raise InvalidInput(
            f"{column} has more than one dimension",
            hint=f"ARRAY(SELECT unnest({column})) has one.",
        )
    return element


def _name(column: str, value: str) -> str:
    if not value.strip():
        raise InvalidInput(
            f"{column} = {value[:40]!r} is empty", hint=f"Give {column} a name, or leave it out."
        )
    if "\0" in value:
        raise InvalidText(f"{column} has a NUL character at position {value.index(chr(0)) + 1}")
    if len(value) > MAX_NAME:
        raise TooLarge(
            f"{column} has {len(value)} characters, over the limit of {MAX_NAME}",
            hint=f"Give {column} a shorter name.",
        )
    return value


def _one_of(allowed: Sequence[str], what: str) -> Callable[[str, str], str]:
    def check(column: str, value: str) -> str:
        if value in allowed:
            return value
        near = get_close_matches(value.strip().lower(), allowed, 1)
        raise InvalidInput(
            f"{column} = {value[:80]!r} is not {what}",
            hint=(f"Did you mean '{near[0]}'? " if near else "")
            + f"Allowed: {', '.join(map(repr, allowed))}.",
        )

    return check


def _number(least: float, most: float, what: str) -> Callable[[str, str], float]:
    def check(column: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise InvalidInput(f"{column} = {value[:80]!r} is not a number") from None
        if not isfinite(number) or not least <= number <= most:
            raise NumberOutOfRange(f"{column} = {value} is not {what}", hint=f"Give {what}.")
        return number

    return check


def _integer(least: int, most: int) -> Callable[[str, str], int]:
    def check(column: str, value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise InvalidInput(f"{column} = {value[:80]!r} is not a whole number") from None
        if not least <= number <= most:
            raise NumberOutOfRange(
                f"{column} = {value} is out of range", hint=f"Give one from {least} to {most}."
            )
        return number

    return check


def _key(column: str, value: str) -> str:
    size = len(_name(column, value).encode())
    if size > MAX_KEY:
        raise TooLarge(
            f"{column} has {size} bytes, over the limit of {MAX_KEY}",
            hint=f"Give {column} a shorter name.",
        )
    return value


_MONEY = _number(0.0, 1e15, "an amount of money from 0 to 1e15")

# What each input that is no text to read must be, by the name of its column.
CHECKS: Mapping[str, Callable[[str, str], object]] = {
    "optimize_for": _one_of(OBJECTIVES, "an objective"),
    "time_range": _name,
    "group_by": _one_of(GROUPINGS, "a grouping"),
    "strategy": _one_of(STRATEGIES, "a strategy"),
    "num_agents": _integer(1, MOST_AGENTS),
    "max_cost": _MONEY,
    "budget_remaining": _MONEY,
    "max_latency_ms": _number(0.0, 1e15, "a number of milliseconds from 0 to 1e15"),
    "min_quality": _number(0.0, 1.0, "a quality from 0 to 1"),
    "min_batch_quality": _number(0.0, 1.0, "a quality from 0 to 1"),
    "total_budget": _MONEY,
    "budget": _number(1e-9, 1e15, "an amount of money above 0, up to 1e15"),
    "quality_threshold": _number(0.0, 1.0, "a quality from 0 to 1"),
    "latency_threshold_ms": _number(1e-9, 1e15, "a number of milliseconds above 0, up to 1e15"),
    "expected_requests": _number(0.0, 1e12, "a number of requests from 0 to 1e12"),
    "expected_input_tokens": _integer(0, MAX_TOKENS),
    "expected_output_tokens": _integer(0, MAX_TOKENS),
    "wrong_match_cost": _MONEY,
    "missed_match_cost": _MONEY,
    "user_tier": _key,
    "tenant": _key,
    "session_key": _key,
    "top_k": _integer(1, MAX_TOP_K),
}


def chunks(texts: Sequence[str], limit: int, size: int) -> Iterator[Sequence[str]]:
    """The texts in pieces of at most `size`, the first no larger than the rows wanted.

    `limit` is how many rows are wanted, -1 for all. Pieces double from there, so that a scan
    that ends early has not worked ahead, and a long one is not held up.
    """
    at, step = 0, size if limit < 0 else max(1, min(limit, size))
    while at < len(texts):
        yield texts[at : at + step]
        at, step = at + step, min(2 * step, size)
