"""The words of requests, as PostgreSQL's full text search makes them of routes' texts too.

Its configuration `simple` takes words in lower case, neither stemmed nor without the frequent
ones, so that it serves every language, codes and names.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinydancer.semantic_routes.words import Words
from tinydancer.store.database import Database

# Characters of a request whose words are looked at: PostgreSQL makes words of up to 1 MiB.
MOST_CHARACTERS = 50_000

WORDS = """
SELECT tsvector_to_array(to_tsvector('pg_catalog.simple', left(request, %s)))
FROM unnest(%s::text[]) WITH ORDINALITY AS asked (request, position) ORDER BY position
"""


def request_words(database: Database, requests: Sequence[str]) -> list[Words]:
    """The different words of each request.

    Raises Unavailable where the database can't be reached.
    """
    parameters = (MOST_CHARACTERS, list(requests))
    rows = database.run(lambda conn: conn.execute(WORDS, parameters).fetchall())
    return [frozenset(words) for (words,) in rows]
