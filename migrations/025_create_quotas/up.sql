-- Quotas set by an operator; they override the settings.
CREATE TABLE quotas (
    subject_kind VARCHAR(50) NOT NULL
        CONSTRAINT quotas_subject_kind_check CHECK (subject_kind IN ('namespace', 'token')),
    subject VARCHAR(255) NOT NULL,
    calls_per_second INTEGER
        CONSTRAINT quotas_calls_per_second_check CHECK (calls_per_second >= 0),
    items_per_second INTEGER
        CONSTRAINT quotas_items_per_second_check CHECK (items_per_second >= 0),
    calls_in_progress INTEGER
        CONSTRAINT quotas_calls_in_progress_check CHECK (calls_in_progress >= 0),
    weight INTEGER CONSTRAINT quotas_weight_check CHECK (weight > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT quotas_pkey PRIMARY KEY (subject_kind, subject)
);

COMMENT ON TABLE quotas IS 'Limits of tenants and of tokens on each replica, overriding the default in the settings.';
COMMENT ON COLUMN quotas.subject_kind IS 'namespace or token.';
COMMENT ON COLUMN quotas.subject IS 'Namespace, or id of the token, that the quota applies to.';
COMMENT ON COLUMN quotas.calls_per_second IS 'Maximum number of calls per second. 0: no limit. NULL: the default.';
COMMENT ON COLUMN quotas.items_per_second IS 'Maximum number of items of batches and of other calls per second. 0: no limit. NULL: the default.';
COMMENT ON COLUMN quotas.calls_in_progress IS 'Maximum number of calls in progress. 0: no limit. NULL: the default.';
COMMENT ON COLUMN quotas.weight IS 'Share of a namespace while others wait, too. NULL: 1, as for all others.';
COMMENT ON COLUMN quotas.created_at IS 'Time of the insert.';
COMMENT ON COLUMN quotas.updated_at IS 'Time of the last update of the row.';
