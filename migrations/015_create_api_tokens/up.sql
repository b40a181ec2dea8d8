-- Who may call. Of a secret only its digest is kept: 256 random bits can't be
-- guessed from it, so it needs neither salt nor a slow hash.
CREATE TABLE api_tokens (
    id UUID NOT NULL CONSTRAINT api_tokens_pkey PRIMARY KEY,
    name VARCHAR(100) NOT NULL,
    role VARCHAR(50) NOT NULL
        CONSTRAINT api_tokens_role_check CHECK (role IN ('READER', 'WRITER', 'ADMIN')),
    namespaces TEXT[] NOT NULL
        CONSTRAINT api_tokens_namespaces_check CHECK (cardinality(namespaces) > 0),
    secret_sha256 BYTEA NOT NULL
        CONSTRAINT api_tokens_secret_sha256_check CHECK (octet_length(secret_sha256) = 32),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ
);

-- The order of ListTokens.
CREATE INDEX idx_api_tokens_created_at_id ON api_tokens (created_at DESC, id DESC);

COMMENT ON TABLE api_tokens IS 'Who may call: a role and the namespaces that it holds for. Rows are never deleted, the journal names them.';
COMMENT ON COLUMN api_tokens.id IS 'Names the token; the first part of the credential.';
COMMENT ON COLUMN api_tokens.name IS 'What people call it.';
COMMENT ON COLUMN api_tokens.role IS 'READER, WRITER or ADMIN; each may do what those before it may.';
COMMENT ON COLUMN api_tokens.namespaces IS 'Namespaces, or beginnings of namespaces, which end in an asterisk.';
COMMENT ON COLUMN api_tokens.secret_sha256 IS 'SHA-256 of the secret; the secret itself is shown once and never kept.';
COMMENT ON COLUMN api_tokens.created_at IS 'When it was created.';
COMMENT ON COLUMN api_tokens.expires_at IS 'From when on it is no longer good; NULL for never.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'When it was last used, to about a minute; NULL if it never was.';
COMMENT ON COLUMN api_tokens.revoked_at IS 'Since when it is revoked; NULL if it is not.';
