"""Learning from outcomes: what an agent's past says about its next request."""
