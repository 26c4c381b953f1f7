-- Group roles, cluster-wide and without login: grant them to the people and programs that need them.

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('tinydancer_reader', 'Tiny Dancer: may read agents, routes and settings.'),
            ('tinydancer_router', 'Tiny Dancer: a reader who may also ask the engine.'),
            ('tinydancer_admin', 'Tiny Dancer: a router who may also change agents, routes and settings.'),
            ('tinydancer_engine', 'Tiny Dancer: what the engine itself needs, and no more.')
        ) AS roles (name, description)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.name);
                EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.description);
            EXCEPTION
                -- Another database of this cluster is being installed at the same moment.
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role "%" is missing, and % may not create it',
                        wanted.name, current_user
                    USING ERRCODE = 'insufficient_privilege',
                        HINT = 'Install as a role with CREATEROLE, or have someone run: '
                            'CREATE ROLE tinydancer_reader; CREATE ROLE tinydancer_router; '
                            'CREATE ROLE tinydancer_admin; CREATE ROLE tinydancer_engine;';
            END;
        END IF;
    END LOOP;
END
$$;
