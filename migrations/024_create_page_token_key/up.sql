-- Keeps the key that signs page tokens. All replicas share it, and it survives a restart. The
-- service adds the row at its first start. Two random UUIDs make 244 random bits.
CREATE TABLE page_token_key (
    is_only_row BOOLEAN DEFAULT TRUE
        CONSTRAINT page_token_key_pkey PRIMARY KEY
        CONSTRAINT page_token_key_is_only_row_check CHECK (is_only_row),
    key BYTEA NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
        CONSTRAINT page_token_key_key_check CHECK (octet_length(key) = 32),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

COMMENT ON TABLE page_token_key IS 'The key that signs page tokens; one row, or none before the first start.';
COMMENT ON COLUMN page_token_key.is_only_row IS 'Primary key. Always true, so that there is one row.';
COMMENT ON COLUMN page_token_key.key IS 'Key of HMAC-SHA-256. Random.';
COMMENT ON COLUMN page_token_key.created_at IS 'Time at which the key was made.';
