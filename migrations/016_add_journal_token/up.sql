-- Who wrote a row of the journal. No foreign key: each row would lock its token.
ALTER TABLE fsm_transitions ADD COLUMN token_id UUID;

COMMENT ON COLUMN fsm_transitions.token_id IS 'The API token of the call that wrote the row (api_tokens.id); NULL if the service itself did, or asked nobody for a token.';
