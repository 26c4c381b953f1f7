"""One module a foreign table: inputs to rows."""
