-- Where a change of embedder collects its vectors before it switches to them.

CREATE TABLE tinydancer.staged_embeddings (
    space text NOT NULL,
    model text NOT NULL,
    source bytea NOT NULL,
    embedding vector(:dimension) NOT NULL,
    PRIMARY KEY (space, model, source)
);
COMMENT ON TABLE tinydancer.staged_embeddings IS
    'Vectors made by a change of embedder that has not finished; empty otherwise.';
COMMENT ON COLUMN tinydancer.staged_embeddings.space IS 'Vector space of the new embedder.';
COMMENT ON COLUMN tinydancer.staged_embeddings.model IS 'Model of the new embedder.';
COMMENT ON COLUMN tinydancer.staged_embeddings.source IS 'SHA-256 of the text.';
COMMENT ON COLUMN tinydancer.staged_embeddings.embedding IS 'Its vector.';
