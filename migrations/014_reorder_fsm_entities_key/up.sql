-- Lock: ACCESS EXCLUSIVE on fsm_entities: builds 1 index

-- Puts entity_id first, because it is the most selective column and every lookup has it.
ALTER TABLE fsm_entities
    DROP CONSTRAINT fsm_entities_pkey,
    ADD CONSTRAINT fsm_entities_pkey PRIMARY KEY (entity_id, namespace, entity_type);
