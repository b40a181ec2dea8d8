//! Requests to domain types. Every violation is collected.

use std::mem;

use prost_types::Timestamp;

use crate::{
    domain::{
        digest::RequestDigest,
        id::{EntityId, TransitionId},
        violation::Violations,
    },
    proto::v1,
    rpc::{
        admit::FromRequest,
        batch_request::{parse_item, parse_items},
        page_token::read_page,
        validate::Validator,
    },
    services::fsm::model::{
        BuiltIn, Definition, EntityFilter, EntityKey, FsmMove, MAX_MOVES, MachineDeletion,
        MachineFilter, MachineQuery, NewMachine, NewTransition, StatsFilter, TransitionFilter,
    },
};

/// How long the names in a machine may be together, in bytes. A batch of moves reads
/// the machine of every type in it.
const MAX_MACHINE_BYTES: usize = 64 * 1024;

/// How far GetTransitionStats looks back if the request does not say: 24 hours.
const STATS_MICROS: i64 = 24 * 3_600 * 1_000_000;

impl FromRequest<v1::PutMachineRequest> for NewMachine {
    fn from_request(request: v1::PutMachineRequest, check: &mut Validator) -> Self {
        let entity_type = machine_type(check, request.entity_type);
        // The definition alone, in words that no other field of a request changes.
        let digest = RequestDigest::of(&v1::PutMachineRequest {
            initial_state: request.initial_state.clone(),
            terminal_states: request.terminal_states.clone(),
            moves: request.moves.clone(),
            ..v1::PutMachineRequest::default()
        });
        for (field, count) in [
            ("terminal_states", request.terminal_states.len()),
            ("moves", request.moves.len()),
        ] {
            if count > MAX_MOVES {
                check.violation(
                    field,
                    format!("must have at most {MAX_MOVES} items, got {count}"),
                );
            }
        }
        let ends = request.terminal_states.into_iter().take(MAX_MOVES);
        let ends = ends
            .enumerate()
            .map(|(index, state)| check.state(&format!("terminal_states[{index}]"), state));
        let terminal_states = ends.collect();
        let moves = request.moves.into_iter().take(MAX_MOVES).enumerate();
        let moves = moves.map(|(index, it)| machine_move(check, index, it));
        let definition = Definition {
            moves: moves.collect(),
            initial_state: check.state("initial_state", request.initial_state),
            terminal_states,
        };
        if definition.text_len() > MAX_MACHINE_BYTES {
            let rule = format!("must have at most {MAX_MACHINE_BYTES} bytes of names together");
            check.violation("moves", rule);
        }
        if check.is_clean() {
            definition.check(check);
        }
        NewMachine {
            entity_type,
            definition,
            digest,
            allow_stranded: request.allow_stranded,
            expected_version: check.optional_count("expected_version", request.expected_version),
        }
    }
}

fn machine_type(check: &mut Validator, text: String) -> String {
    let entity_type = check.name("entity_type", text);
    if let Some(built_in) =
        BuiltIn::from_name(&entity_type).filter(|it| !it.allows_custom_machine())
    {
        let service = built_in.move_rpc().split('/').next().unwrap_or_default();
        check.violation(
            "entity_type",
            format!("must not be {entity_type}: {service} moves these by rules of its own"),
        );
    }
    entity_type
}

fn machine_move(check: &mut Validator, index: usize, it: v1::FsmMove) -> FsmMove {
    let field = |name| format!("moves[{index}].{name}");
    FsmMove {
        from_state: check.state(&field("from_state"), it.from_state),
        transition_event: check.name(&field("transition_event"), it.transition_event),
        to_state: check.state(&field("to_state"), it.to_state),
    }
}

impl FromRequest<v1::GetMachineRequest> for MachineQuery {
    fn from_request(request: v1::GetMachineRequest, check: &mut Validator) -> Self {
        MachineQuery {
            entity_type: check.name("entity_type", request.entity_type),
            version: Some(check.count("version", request.version)).filter(|version| *version != 0),
        }
    }
}

impl FromRequest<v1::ListMachinesRequest> for MachineFilter {
    fn from_request(mut request: v1::ListMachinesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        MachineFilter { page }
    }
}

impl FromRequest<v1::DeleteMachineRequest> for MachineDeletion {
    fn from_request(request: v1::DeleteMachineRequest, check: &mut Validator) -> Self {
        MachineDeletion {
            entity_type: machine_type(check, request.entity_type),
            allow_missing: request.allow_missing,
        }
    }
}

impl FromRequest<v1::RecordTransitionRequest> for NewTransition {
    fn from_request(request: v1::RecordTransitionRequest, check: &mut Validator) -> Self {
        parse_item(request.transition, "transition", check, new_transition)
    }
}

impl FromRequest<v1::BatchRecordTransitionsRequest> for Vec<Result<NewTransition, Violations>> {
    fn from_request(request: v1::BatchRecordTransitionsRequest, check: &mut Validator) -> Self {
        parse_items(request.transitions, "transitions", check, new_transition)
    }
}

fn new_transition(mut new: v1::NewTransition, check: &mut Validator) -> NewTransition {
    let chosen_id = check.optional_id("transition_id", &mem::take(&mut new.transition_id));
    new.entity_id.make_ascii_lowercase();
    new.transition_data = new.transition_data.filter(|document| !document.is_empty());
    // A condition is no content: whoever looks again before a retry expects another.
    let from_state = new.from_state.take();
    let request_digest = RequestDigest::of(&new);
    let entity_type = check.name("entity_type", new.entity_type);
    if let Some(built_in) = BuiltIn::from_name(&entity_type) {
        let rpc = built_in.move_rpc();
        check.violation(
            "entity_type",
            format!("must not be {entity_type}: call {rpc}"),
        );
    }
    NewTransition {
        is_id_chosen: chosen_id.is_some(),
        id: chosen_id.unwrap_or_else(TransitionId::generate),
        entity: EntityKey {
            entity_type,
            entity_id: check.id("entity_id", &new.entity_id),
        },
        from_state: from_state.map(|state| match state.is_empty() {
            true => state,
            false => check.state("from_state", state),
        }),
        to_state: check.optional_state("to_state", new.to_state),
        transition_event: check.name("transition_event", new.transition_event),
        transition_data: check.json("transition_data", new.transition_data),
        request_digest,
    }
}

impl FromRequest<v1::GetEntityRequest> for EntityKey {
    fn from_request(request: v1::GetEntityRequest, check: &mut Validator) -> Self {
        EntityKey {
            entity_type: own_type(check, request.entity_type, BuiltIn::get_rpc),
            entity_id: check.id("entity_id", &request.entity_id),
        }
    }
}

/// A type whose entities are read here; those of others are read by other RPCs.
fn own_type(check: &mut Validator, text: String, rpc: impl Fn(BuiltIn) -> &'static str) -> String {
    let entity_type = check.name("entity_type", text);
    if let Some(built_in) = BuiltIn::from_name(&entity_type) {
        let rpc = rpc(built_in);
        check.violation(
            "entity_type",
            format!("must not be {entity_type}: call {rpc}"),
        );
    }
    entity_type
}

impl FromRequest<v1::ListEntitiesRequest> for EntityFilter {
    fn from_request(mut request: v1::ListEntitiesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        let before: Option<&Timestamp> = request.state_since_before.as_ref();
        EntityFilter {
            entity_type: own_type(check, request.entity_type, BuiltIn::list_rpc),
            current_state: check.optional_state("current_state", request.current_state),
            state_since_before: check.optional_time("state_since_before", before),
            page,
        }
    }
}

impl FromRequest<v1::ListTransitionsRequest> for TransitionFilter {
    const READS_REGISTRY: bool = true;

    fn from_request(mut request: v1::ListTransitionsRequest, check: &mut Validator) -> Self {
        request.entity_id.make_ascii_lowercase();
        let is_newest_first = is_newest_first(check, request.order);
        // That nothing was said of the order, and what it is then, are the same query.
        request.order = is_newest_first.into();
        let page = read_page(check, &mut request);
        TransitionFilter {
            entity_type: check.name("entity_type", request.entity_type),
            entity_id: check.optional_id::<EntityId>("entity_id", &request.entity_id),
            transition_event: check.optional_name("transition_event", request.transition_event),
            from_state: check.optional_state("from_state", request.from_state),
            to_state: check.optional_state("to_state", request.to_state),
            created_after: check.optional_time("created_after", request.created_after.as_ref()),
            created_before: check.optional_time("created_before", request.created_before.as_ref()),
            is_newest_first,
            page,
        }
    }
}

fn is_newest_first(check: &mut Validator, number: i32) -> bool {
    match v1::TransitionOrder::try_from(number) {
        Ok(v1::TransitionOrder::Unspecified | v1::TransitionOrder::OldestFirst) => false,
        Ok(v1::TransitionOrder::NewestFirst) => true,
        Err(_) => {
            check.violation("order", format!("must be a TransitionOrder, not {number}"));
            false
        }
    }
}

impl FromRequest<v1::GetTransitionStatsRequest> for StatsFilter {
    const READS_REGISTRY: bool = true;

    fn from_request(request: v1::GetTransitionStatsRequest, check: &mut Validator) -> Self {
        let within = check.optional_within("created_within", request.created_within);
        StatsFilter {
            entity_type: check.name("entity_type", request.entity_type),
            entity_id: check.optional_id::<EntityId>("entity_id", &request.entity_id),
            created_within_micros: within.unwrap_or(STATS_MICROS),
        }
    }
}
