"""The SQL that is installed in the database: migrations, once and in order; functions, replaced."""
