-- Lock: ACCESS EXCLUSIVE on fsm_transitions: reads no rows

-- Records which token wrote a journal row. A foreign key is omitted, because each insert
-- would lock the row of its token.
ALTER TABLE fsm_transitions ADD COLUMN token_id UUID;

COMMENT ON COLUMN fsm_transitions.token_id IS 'API token of the call that wrote the row (api_tokens.id). NULL if the service itself wrote it or authentication was off.';
