ALTER TABLE fsm_entities
    DROP CONSTRAINT fsm_entities_pkey,
    ADD CONSTRAINT fsm_entities_pkey PRIMARY KEY (namespace, entity_type, entity_id);
