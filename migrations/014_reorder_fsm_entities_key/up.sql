-- The id first: it is what tells rows apart, and what they are looked up by.
ALTER TABLE fsm_entities
    DROP CONSTRAINT fsm_entities_pkey,
    ADD CONSTRAINT fsm_entities_pkey PRIMARY KEY (entity_id, namespace, entity_type);
