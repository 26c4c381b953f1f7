"""What the README says works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from tinydancer.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docker/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_its_sql_runs_in_order(db: psycopg.Connection, page: Path) -> None:
    db.execute("CREATE TABLE public.tickets (id int, state text, body text)")
    try:
        db.execute("INSERT INTO public.tickets VALUES (1, 'new', 'Where is my order?')")
        blocks = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
        assert blocks
        for block in blocks:
            for statement in block.split(";\n"):
                if statement.strip():
                    assert db.execute(statement).fetchall(), statement
    finally:
        db.execute("DROP TABLE public.tickets")


def test_its_links_lead_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_its_commands_are_commands() -> None:
    for page in PAGES:
        named = re.findall(r"^    (?:sudo )?(?:\S*/)?tinydancer +(\S+)", page.read_text(), re.M)
        assert set(named) <= set(COMMANDS), page.name
        if page.parent == ROOT:
            assert {"up", "psql", "status", "down", "install", "serve"} <= set(named)


def test_its_make_targets_are_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        assert set(re.findall(r"\bmake ([a-z]+)\b", page.read_text())) <= targets
