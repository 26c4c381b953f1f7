-- The category of a request counts in how well an agent suits it.

ALTER TABLE tinydancer.settings
    ADD COLUMN category_share double precision NOT NULL DEFAULT 0.65,
    ADD CONSTRAINT settings_category_share_is_a_share CHECK (category_share BETWEEN 0 AND 1);
COMMENT ON COLUMN tinydancer.settings.category_share IS
    'What the likely categories of a request count in an agent''s fit, by the likeness of their '
    'names to its capabilities; the rest is the likeness of the texts. 0 where categories have '
    'names that say nothing.';
