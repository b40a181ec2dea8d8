-- The machine of the entities, as PutMachine stores it: two states, and one event that leads
-- from each to the other, so that every entity can always move. The digest is arbitrary,
-- because the benchmark never compares it with a definition.
INSERT INTO fsm_machines (namespace, entity_type, version, definition, definition_digest)
VALUES ('bench', 'valve', 1,
        '{"initial_state": "OPEN", "terminal_states": [], "moves": [
             {"from_state": "OPEN", "transition_event": "toggle", "to_state": "CLOSED"},
             {"from_state": "CLOSED", "transition_event": "toggle", "to_state": "OPEN"}]}',
        '\x000102030405060708090a0b0c0d0e0f')
    ON CONFLICT ON CONSTRAINT fsm_machines_pkey DO NOTHING
