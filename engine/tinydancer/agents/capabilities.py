"""What an agent can do: capabilities by their exact name, and by meaning."""

from __future__ import annotations


def capability_key(capability: str) -> str:
    """The form by which capabilities are compared: no outer space, no case ('Code ' is 'code')."""
    return capability.strip().casefold()
