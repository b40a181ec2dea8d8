-- Tokens that authenticate callers. Only the SHA-256 of a secret is stored. A secret
-- has 256 random bits, so the hash needs neither a salt nor a slow algorithm.
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

-- Supports the sort order of ListTokens.
CREATE INDEX idx_api_tokens_created_at_id ON api_tokens (created_at DESC, id DESC);

COMMENT ON TABLE api_tokens IS 'API tokens: each grants a role in a set of namespaces. Rows are never deleted, because the journal refers to them.';
COMMENT ON COLUMN api_tokens.id IS 'Primary key. The first part of the credential.';
COMMENT ON COLUMN api_tokens.name IS 'Human-readable name.';
COMMENT ON COLUMN api_tokens.role IS 'READER, WRITER or ADMIN. Each role includes the rights of the roles before it.';
COMMENT ON COLUMN api_tokens.namespaces IS 'Namespaces that the token is valid for. An entry that ends in an asterisk matches by prefix.';
COMMENT ON COLUMN api_tokens.secret_sha256 IS 'SHA-256 of the secret. The secret itself is shown once and never stored.';
COMMENT ON COLUMN api_tokens.created_at IS 'Time of creation.';
COMMENT ON COLUMN api_tokens.expires_at IS 'Time at which the token expires. NULL if it never expires.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'Time of the last use, accurate to about a minute. NULL if the token was never used.';
COMMENT ON COLUMN api_tokens.revoked_at IS 'Time of revocation. NULL if the token is not revoked.';
