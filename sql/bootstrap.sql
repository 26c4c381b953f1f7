-- What must be there before the first migration: the schema and the record of migrations.
-- Run on each install and upgrade; changes nothing that is already there.

CREATE SCHEMA IF NOT EXISTS tinydancer;
COMMENT ON SCHEMA tinydancer IS
    'Tiny Dancer: request routing for AI agents. Tables are the truth; foreign tables ask the engine.';

CREATE TABLE IF NOT EXISTS tinydancer.migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tinydancer.migrations IS 'Migrations that have run in this database, each once.';
COMMENT ON COLUMN tinydancer.migrations.name IS 'File name of the migration, without its ending.';
COMMENT ON COLUMN tinydancer.migrations.checksum IS
    'SHA-256 of the file, in hexadecimal: a migration is never changed once it has run.';
COMMENT ON COLUMN tinydancer.migrations.applied_at IS 'When it ran.';
