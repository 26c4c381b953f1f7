"""Recall@3 and time of the route search by HNSW against exact search, on many routes.

    python tests/benchmarks/route_recall.py --dsn "host=... dbname=an_empty_database" [--routes N]

Routes are sentences put together from verbs, objects and circumstances, so that each has many
near neighbours; queries are other wordings of them. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from itertools import product
from statistics import quantiles
from time import perf_counter

import numpy as np
import psycopg

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.select import EmbedderSettings, embedder_for
from tinydancer.store import schema
from tinydancer.store.database import Database
from tinydancer.store.route_search import ranked_routes
from tinydancer.store.snapshots import Snapshots
from tinydancer.store.write_back import vector_texts


def _words(text: str) -> list[str]:
    return text.split("|")


VERBS = _words(
    "cancel|change|check|close|compare|confirm|correct|delay|describe|dispute|download|explain|"
    "export|extend|find|fix|forward|import|limit|list|lock|merge|move|open|order|pause|pay|plan|"
    "print|refund|rename|renew|repair|replace|report|request|reset|return|review|schedule|send|"
    "share|sort|split|stop|summarise|test|track|transfer|translate|unlock|update|upgrade|verify"
)
OBJECTS = _words(
    "account|address|agenda|agreement|alarm|appointment|balance|bank statement|battery|bill|"
    "booking|budget|calendar|camera|card|certificate|chart|claim|contract|coupon|course|database|"
    "delivery|deposit|device|diagram|discount|document|driver licence|email|essay|exam|expense|"
    "fee|flight|form|goal|graph|guest list|headset|hotel room|house plan|insurance|interview|"
    "invoice|itinerary|job offer|keyboard|lease|lesson|letter|licence key|loan|luggage|map|"
    "medicine|meeting|menu|message|mortgage|network|newsletter|notebook|order|package|parcel|"
    "passport|password|payment|payroll|phone|photo|playlist|policy|poll|portfolio|prescription|"
    "printer|profile|project|proof|query|quote|receipt|recipe|refund|reminder|repository|report|"
    "reservation|router|salary|schedule|score|screen|script|server|shift|signature|speech|"
    "spreadsheet|story|subscription|survey|tablet|tax form|tenancy|ticket|timesheet|transcript|"
    "trip|tyre|vaccine|video|visa|voucher|wallet|warranty|website|wiring"
)
CIRCUMSTANCES = _words(
    "for a customer|for my family|for the whole team|from last month|on the weekend|in Germany|"
    "without a receipt|after the deadline|before the flight|by phone|that was stolen|in Spanish|"
    "for a small company|as soon as possible|with a new supplier|at the airport"
)


def routes(count: int) -> list[str]:
    """Descriptions, all different."""
    everything = [" ".join(words) for words in product(VERBS, OBJECTS, CIRCUMSTANCES)]
    random.Random(0).shuffle(everything)
    return everything[:count]


def queries(descriptions: list[str], count: int) -> list[str]:
    """Other wordings of some routes."""
    chosen = random.Random(1).sample(descriptions, count)
    return [f"How can I {text.split(' ', 1)[0]} my {text.split(' ', 1)[1]}?" for text in chosen]


def main(given: Sequence[str] | None = None) -> None:
    """Fill the database, search both ways, print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--routes", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--ef-search", type=int, nargs="+", default=[40, 100, 200, 400])
    arguments = parser.parse_args(given)

    embedder = embedder_for(EmbedderSettings(kind="static"))
    descriptions = routes(arguments.routes)
    vectors = embedder.embed(descriptions)
    asked = embedder.embed(queries(descriptions, arguments.queries))
    with psycopg.connect(arguments.dsn, autocommit=True) as conn:
        schema.install(conn, dimension=embedder.dimension)
        fill(conn, embedder, descriptions, np.asarray(vectors))
        database = Database(arguments.dsn)
        snapshots = Snapshots(database, lambda _: embedder)
        # A route as near as the third best, to six digits, is as good an answer.
        third = -np.partition(-(asked @ vectors.T), 2, axis=1)[:, 2] - 1e-6
        result: dict[str, object] = {"routes": len(descriptions), "queries": len(asked)}
        for ef_search in arguments.ef_search:
            conn.execute(
                "UPDATE tinydancer.settings SET route_index = 'hnsw', route_index_ef_search = %s",
                (ef_search,),
            )
            snapshot = snapshots.current()
            found, times = [], []
            for query in asked:
                start = perf_counter()
                (ranked,) = ranked_routes(database, snapshot, query[None, :])
                found.append([next(ranked)[1] for _ in range(3)])
                times.append(perf_counter() - start)
            hits = int((np.array(found) >= third[:, None]).sum())
            cuts = quantiles(times, n=100)
            result[f"ef_search {ef_search}"] = {
                "recall@3": round(hits / (3 * len(asked)), 4),
                "p50_ms": round(1e3 * cuts[49], 2),
                "p99_ms": round(1e3 * cuts[98], 2),
            }
        snapshots.close()
        database.close()
    print(json.dumps(result, indent=2))


def fill(
    conn: psycopg.Connection, embedder: Embedder, descriptions: list[str], vectors: Vectors
) -> None:
    """Write routes with their vectors, as an engine would have, and build the index at once."""
    conn.execute("TRUNCATE tinydancer.routes CASCADE")
    conn.execute("DROP INDEX tinydancer.routes_embedding")
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "COPY tinydancer.routes (name, description, target_agent, embedding, embedding_model,"
            " embedding_space, embedding_source) FROM STDIN"
        ) as copy,
    ):
        for start in range(0, len(descriptions), 1000):
            texts = vector_texts(vectors[start : start + 1000])
            for offset, text in enumerate(texts):
                at = start + offset
                copy.write_row(
                    (
                        f"r{at}",
                        descriptions[at],
                        "agent",
                        text,
                        embedder.model,
                        embedder.space,
                        None,
                    )
                )
    conn.execute("UPDATE tinydancer.routes SET embedding_source = tinydancer.digest(description)")
    conn.execute("VACUUM FULL tinydancer.routes")
    conn.execute("SET maintenance_work_mem = '512MB'")
    conn.execute(
        "CREATE INDEX routes_embedding ON tinydancer.routes"
        " USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 128)"
    )
    conn.execute("ANALYZE tinydancer.routes")


if __name__ == "__main__":
    main()
