"""Several agents for one request: the request taken apart, and who takes which part."""
