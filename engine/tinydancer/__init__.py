"""Tiny Dancer: request routing for AI agents, inside PostgreSQL. This package is the engine."""

__version__ = "0.5.0"
