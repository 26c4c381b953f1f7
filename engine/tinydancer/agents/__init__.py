"""Who can serve a request: the agents, their prices and what they can do."""
