"""The Multicorn2 front door: quals → one scan → rows. Standard library and Multicorn only.

    CREATE SERVER tinydancer_multicorn FOREIGN DATA WRAPPER multicorn
      OPTIONS (wrapper 'tinydancer_fdw.wrapper.TinyDancer', socket '/path/of/the/engine.sock');

Multicorn keeps one instance a foreign table and backend, across SET ROLE: nothing in here knows
who is asking. The token comes with the options, which Multicorn compares before each use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from logging import ERROR
from typing import NoReturn

from multicorn import ForeignDataWrapper
from multicorn.utils import log_to_postgres

from tinydancer_fdw import contract, quals
from tinydancer_fdw.backend import Backend
from tinydancer_fdw.client import Address, Client, EngineError
from tinydancer_fdw.frames import FrameError, Scan
from tinydancer_fdw.streams import Interrupted

FRONT_DOOR = "multicorn"
_OPTIONS = (
    "socket", "host", "port", "sslrootcert", "database", "token", "timeout", "connect_timeout",
)  # fmt: skip
# What a scan without its required input is said to yield: so much that a plan which supplies the
# input, row by row, is always the cheaper one.
_UNCONSTRAINED_ROWS = 1_000_000
# Multicorn's cost of a scan is rows times width: the true width (a row of explanations is a
# kilobyte) would drown the rest.
_WIDTH = 1
_COST_PER_MICROSECOND = 0.1
# How much dearer a scan is said to be for each input that a join might supply, and does not. A
# join clause that is left out of a scan compares an input without a value, and loses its rows.
_PENALTY = 16
# Sets of inputs that are offered to the planner: each costs it some microseconds.
_MOST_PATH_KEYS = 128
_MOST_REMEMBERED = 256


class _Process:
    """What all the foreign tables of this backend share."""

    def __init__(self) -> None:
        self.backend = Backend()
        self._clients: dict[Address, Client] = {}
        self._statement = 1
        self._started: int | None = None

    def client(self, address: Address) -> Client:
        """The client of an address."""
        if address not in self._clients:
            self._clients[address] = Client(address, FRONT_DOOR, self.backend.interrupted)
        return self._clients[address]

    def statement(self) -> int:
        """A number that the rescans of one statement share; 0 where that can't be known.

        Multicorn has no notion of a statement. Planning, the end of any scan, the end of a
        (sub)transaction and a new message of the client's each begin a new number: between two
        of these there are only scans and rescans of one plan.
        """
        started = self.backend.statement_started()
        if started is None:
            return 0
        if started != self._started:
            self._started = started
            self.new_statement()
        return self._statement

    def new_statement(self) -> None:
        """What comes now may be another statement."""
        self._statement += 1

    def transaction_ended(self) -> None:
        """No scan goes on across the end of a transaction; a failed one may never be closed."""
        self.new_statement()
        for client in self._clients.values():
            client.close_running()


_process = _Process()


class TinyDancer(ForeignDataWrapper):  # type: ignore[misc]
    """One foreign table of the contract, named by the option `table`."""

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, object]) -> None:
        super().__init__(options, columns)
        self._table = _table(options)
        self._columns = tuple(columns)
        for name in self._columns:
            if self._table.column(name) is None:
                _fail(
                    "42703",
                    f'the engine\'s table "{self._table.name}" has no column "{name}"',
                    hint="Import it again: IMPORT FOREIGN SCHEMA tinydancer FROM SERVER ...",
                )
        self._client = _process.client(_address(options))
        self._engine_database = options.get("database", "")
        self._path_keys: Sequence[tuple[tuple[str, ...], int]] = ()
        self._startup_cost = round(self._table.microseconds * _COST_PER_MICROSECOND)

    def get_rel_size(self, quals_: Sequence[quals.Qual], columns: Iterable[str]) -> tuple[int, int]:
        """(rows, width) of a scan, for the planner: a list is as many requests as it is long."""
        _process.new_statement()
        given = frozenset(qual.field_name for qual in quals_)
        self._path_keys = _path_keys(self._table.name, given, frozenset(columns))
        if self._table.key is None:
            return self._table.rows, _WIDTH
        count = quals.requests(self._table, quals_)
        rows = _UNCONSTRAINED_ROWS if count is None else max(1, count * self._table.rows)
        if self._path_keys:
            rows *= _PENALTY * max(rows for _, rows in self._path_keys)
        return rows, _WIDTH

    def get_path_keys(self) -> Sequence[tuple[tuple[str, ...], int]]:
        """The sets of inputs that a join may supply, each with the rows that it yields.

        Multicorn asks for the size of the same table first, and for these right after it.
        """
        return self._path_keys

    def explain(
        self,
        quals_: Sequence[quals.Qual],
        columns: Iterable[str],
        sortkeys: object = None,
        verbose: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[str]:
        """What is sent to the engine, a line each."""
        try:
            return quals.explain(self._table, quals_, columns)
        except quals.UnusableQual as error:
            return [f"Engine Error: {error}"]

    def execute(
        self,
        quals_: Sequence[quals.Qual],
        columns: Iterable[str],
        sortkeys: object = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[Sequence[str | None]]:
        """The rows of one scan, each with every column of the foreign table."""
        try:
            inputs = quals.inputs(self._table, quals_)
        except quals.UnusableQual as error:
            _fail(error.sqlstate, str(error), hint=error.hint)
        wanted = frozenset(columns).union(item.column for item in inputs)
        asked, places = _asked(self._columns, wanted)
        scan = Scan(
            self._table.name,
            asked,
            tuple(inputs),
            statement=_process.statement(),
            place=_process.backend.place(self._engine_database),
        )
        return self._rows(scan, places)

    def _rows(self, scan: Scan, places: Sequence[int]) -> Iterator[Sequence[str | None]]:
        whole = len(places) == len(self._columns)
        try:
            for cells in self._client.scan(scan):
                if whole:
                    yield cells
                    continue
                row: list[str | None] = [None] * len(self._columns)
                for place, cell in zip(places, cells):  # noqa: B905 - a frame's cells are counted
                    row[place] = cell
                yield row
        except Interrupted:
            pass
        except EngineError as error:
            _fail(error.sqlstate, error.message, error.detail, error.hint)
        except FrameError as error:
            _fail("54000", str(error), hint="Ask for less at a time.")
        else:
            return
        if scan.inputs:
            # A row of NULLs, which the quals refuse: PostgreSQL goes round for the next one, and
            # on its way acts on the cancel or timeout, with its own message and SQLSTATE.
            yield [None] * len(self._columns)
        _fail("57014", "the statement was canceled during a scan of the engine")

    def end_scan(self) -> None:
        """A scan is over, or will not be asked again."""
        _process.new_statement()

    def commit(self) -> None:
        """The transaction has ended."""
        _process.transaction_ended()

    def rollback(self) -> None:
        """The transaction has ended."""
        _process.transaction_ended()

    def sub_rollback(self, level: int) -> None:
        """A part of the transaction has failed."""
        _process.new_statement()

    @classmethod
    def import_schema(
        cls,
        schema: str,
        srv_options: Mapping[str, str],
        options: Mapping[str, str],
        restriction_type: str | None,
        restricts: Sequence[str],
    ) -> list[_Definition]:
        """The tables of the contract, or those of them that LIMIT TO and EXCEPT leave."""
        for name in restricts:
            if restriction_type == "limit" and name not in contract.TABLES:
                _fail(
                    "42704",
                    f'the engine has no table "{name}"',
                    hint=f"It has {', '.join(contract.TABLES)}.",
                )
        listed = set(restricts)
        return [
            _Definition(table)
            for name, table in contract.TABLES.items()
            if restriction_type is None or (name in listed) == (restriction_type == "limit")
        ]


class _Definition:
    """A foreign table to be created, as Multicorn asks for it."""

    def __init__(self, table: contract.Table) -> None:
        self._table = table

    def to_statement(self, schema_name: str, server_name: str) -> str:
        """The CREATE FOREIGN TABLE."""
        return contract.create_statement(self._table, _quoted(server_name), _quoted(schema_name))


# What each plan and each scan has to know of the columns that a query names, worked out once.
@lru_cache(_MOST_REMEMBERED)
def _asked(
    columns: tuple[str, ...], wanted: frozenset[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The wanted ones of a table's columns in their order, and their places."""
    places = tuple(place for place, name in enumerate(columns) if name in wanted)
    return tuple(columns[place] for place in places), places


@lru_cache(_MOST_REMEMBERED)
def _path_keys(
    name: str, given: frozenset[str], columns: frozenset[str]
) -> list[tuple[tuple[str, ...], int]]:
    """The required input of a table, if it is not given yet, alone and with others that the query
    names.

    Multicorn does not say which inputs a join has values for, so all sets of them are offered, up
    to a size; the planner takes the largest that it can have.
    """
    table = contract.TABLES[name]
    key = (table.key,) if table.key is not None and table.key not in given else ()
    others = [
        column.name
        for column in table.inputs
        if not column.required and column.name in columns and column.name not in given
    ]
    sets: list[tuple[str, ...]] = []
    for size in range(len(others) + 1):
        more = [key + others_ for others_ in combinations(others, size) if key + others_]
        if len(sets) + len(more) > _MOST_PATH_KEYS:
            break
        sets += more
    largest = len(sets[-1]) if sets else 0
    return [(names, table.rows * _PENALTY ** (largest - len(names))) for names in sets]


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _table(options: Mapping[str, str]) -> contract.Table:
    name = options.get("table")
    if name is None:
        _fail("HV00J", "the foreign table has no option table", hint="OPTIONS (table '...')")
    if name not in contract.TABLES:
        _fail(
            "HV00C",
            f'option table is "{name}", which the engine does not have',
            hint=f"It has {', '.join(contract.TABLES)}.",
        )
    return contract.TABLES[name]


def _address(options: Mapping[str, str]) -> Address:
    for name in options:
        if name not in (*_OPTIONS, "table"):
            _fail("HV00D", f'option "{name}" is not known', hint=f"Known: {', '.join(_OPTIONS)}.")
    by_socket = "socket" in options
    if by_socket == ("host" in options or "port" in options) or (
        not by_socket and not ("host" in options and "port" in options)
    ):
        _fail("HV00J", "the foreign server needs option socket, or host and port")
    if options.get("database") == "":
        hint = "It is the name of the database whose engine is meant."
        _fail("HV024", "option database is empty", hint=hint)
    return Address(
        socket=options.get("socket", ""),
        host=options.get("host", ""),
        port=_number(options, "port", 0, 65535),
        sslrootcert=options.get("sslrootcert", ""),
        token=options.get("token", ""),
        timeout=_number(options, "timeout", 30_000, 2**31 - 1) / 1000,
        connect_timeout=_number(options, "connect_timeout", 2_000, 2**31 - 1) / 1000,
    )


def _number(options: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal() or (name in options and not 1 <= int(text) <= most):
        _fail("HV024", f'option {name} is "{text}", not a whole number from 1 to {most}')
    return int(text)


def _fail(sqlstate: str, message: str, detail: str = "", hint: str = "") -> NoReturn:
    """Raises what Multicorn reports as an ERROR, always under XX000: so the detail says which."""
    state = f"SQLSTATE {sqlstate}"
    detail = f"{detail} ({state})" if detail else state
    log_to_postgres(message, ERROR, hint=hint or None, detail=detail)
    raise AssertionError("log_to_postgres raises for an ERROR")
