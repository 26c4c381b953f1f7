"""Most quality for a budget, and least cost for a batch."""
