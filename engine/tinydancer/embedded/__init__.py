"""The embedded PostgreSQL with its engine beside it: server, directories, processes, accounts."""
