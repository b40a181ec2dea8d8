//! Converts requests to domain types, and collects every violation.

use crate::{
    db::feed::scope::TransitionMatch,
    domain::{
        digest::RequestDigest,
        id::{EntityId, MachineChangeId},
        journal::DELETED,
        json::Struct,
        namespace::WILDCARD,
        violation::Violations,
    },
    proto::v1::{self, watch_transitions_request::Begin},
    rpc::{
        admit::FromRequest,
        batch_request::{parse_item, parse_items},
        page_token::read_page,
        validate::{Validator, quoted},
    },
    services::{
        convert::take_id,
        fsm::model::{
            BuiltIn, Definition, EntityFilter, EntityKey, FsmMove, MAX_MOVES, MachineDeletion,
            MachineFilter, MachineQuery, NewMachine, NewTransition, StatsFilter, TransitionFilter,
            WatchBegin, WatchRequest,
        },
        workflow::model::State,
    },
};

/// Maximum size of all names of a machine together, in bytes. A batch of moves reads the
/// machine of every entity type in it.
const MAX_MACHINE_BYTES: usize = 64 * 1024;

/// Maximum number of states of workflows in a snapshot: twice as many as there are.
const MAX_WORKFLOW_STATES: usize = 10;

/// The states of workflows that a snapshot has by default: those that are not terminal.
const ACTIVE_STATES: [State; 2] = [State::Pending, State::Processing];

/// Default lookback of GetTransitionStats: 24 hours.
const STATS_MICROS: i64 = 24 * 3_600 * 1_000_000;

impl FromRequest<v1::PutMachineRequest> for NewMachine {
    fn from_request(request: v1::PutMachineRequest, check: &mut Validator) -> Self {
        let entity_type = check.name("entity_type", request.entity_type);
        let entity_type = machine_type(check, entity_type);
        // The digest of the definition alone, without the other fields of the request.
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
        let length = definition.text_len();
        if length > MAX_MACHINE_BYTES {
            let rule = format!("must have at most {MAX_MACHINE_BYTES} bytes of names together");
            check.violation("moves", format!("{rule}, got {length}"));
        }
        if entity_type == BuiltIn::Bridge.as_str() {
            check_bridge_states(check, &definition);
        }
        if check.is_clean() {
            definition.check(check);
        }
        NewMachine {
            id: MachineChangeId::generate(),
            entity_type,
            definition,
            digest,
            allow_stranded: request.allow_stranded,
            expected_version: check.optional_count("expected_version", request.expected_version),
        }
    }
}

/// Checks an entity type that may have a machine of the tenant.
fn machine_type(check: &mut Validator, entity_type: String) -> String {
    if let Some(built_in) =
        BuiltIn::from_name(&entity_type).filter(|it| !it.allows_custom_machine())
    {
        let service = built_in.move_rpc().split('/').next().unwrap_or_default();
        check.violation(
            "entity_type",
            format!("must not be {entity_type}, because {service} moves these by fixed rules"),
        );
    }
    entity_type
}

/// Checks that bridges do not move to the state of deleted ones.
fn check_bridge_states(check: &mut Validator, definition: &Definition) {
    let moves = definition.moves.iter().enumerate();
    let moves = moves.map(|(index, it)| (format!("moves[{index}].to_state"), &it.to_state));
    let initial = ("initial_state".to_owned(), &definition.initial_state);
    for (field, _) in moves
        .chain([initial])
        .filter(|(_, state)| *state == DELETED)
    {
        let rule = "must not be DELETED, which the journal has for a deleted bridge";
        check.violation(&field, rule);
    }
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
            entity_type: check.stored_name("entity_type", request.entity_type),
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
        let entity_type = check.stored_name("entity_type", request.entity_type);
        MachineDeletion {
            id: MachineChangeId::generate(),
            entity_type: machine_type(check, entity_type),
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
    let (id, is_id_chosen) = take_id(check, "transition_id", &mut new.transition_id);
    new.entity_id.make_ascii_lowercase();
    Struct::unset_if_empty(&mut new.transition_data);
    // A condition is not content: a client that reads the entity again before a retry
    // expects another state.
    let from_state = new.from_state.take();
    let request_digest = RequestDigest::of(&new);
    let entity_type = check.name("entity_type", new.entity_type);
    NewTransition {
        id,
        is_id_chosen,
        entity: EntityKey {
            entity_type: custom_type(check, entity_type, BuiltIn::move_rpc),
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
        let entity_type = check.stored_name("entity_type", request.entity_type);
        EntityKey {
            entity_type: custom_type(check, entity_type, BuiltIn::get_rpc),
            entity_id: check.id("entity_id", &request.entity_id),
        }
    }
}

/// Checks an entity type that FsmService keeps the entities of. For a built-in type, the
/// violation names the RPC to call instead.
fn custom_type(
    check: &mut Validator,
    entity_type: String,
    rpc: fn(BuiltIn) -> &'static str,
) -> String {
    if let Some(built_in) = BuiltIn::from_name(&entity_type) {
        let rpc = rpc(built_in);
        let rule = format!("must not be {entity_type}; call {rpc} instead");
        check.violation("entity_type", rule);
    }
    entity_type
}

impl FromRequest<v1::ListEntitiesRequest> for EntityFilter {
    fn from_request(mut request: v1::ListEntitiesRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        let before = request.state_since_before.as_ref();
        let entity_type = check.stored_name("entity_type", request.entity_type);
        EntityFilter {
            entity_type: custom_type(check, entity_type, BuiltIn::list_rpc),
            current_state: check.optional_stored_state("current_state", request.current_state),
            state_since_before: check.optional_upper_bound("state_since_before", before),
            page,
        }
    }
}

impl FromRequest<v1::ListTransitionsRequest> for TransitionFilter {
    const READS_REGISTRY: bool = true;

    fn from_request(mut request: v1::ListTransitionsRequest, check: &mut Validator) -> Self {
        request.entity_id.make_ascii_lowercase();
        let is_newest_first = is_newest_first(check, request.order);
        // An unset order and the default order are the same query.
        request.order = is_newest_first.into();
        let page = read_page(check, &mut request);
        TransitionFilter {
            entity_type: check.stored_name("entity_type", request.entity_type),
            entity_id: check.optional_id::<EntityId>("entity_id", &request.entity_id),
            transition_event: check
                .optional_stored_name("transition_event", request.transition_event),
            from_state: check.optional_stored_state("from_state", request.from_state),
            to_state: check.optional_stored_state("to_state", request.to_state),
            created_after: check.optional_time("created_after", request.created_after.as_ref()),
            created_before: check
                .optional_upper_bound("created_before", request.created_before.as_ref()),
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
            check.violation("order", format!("must be a TransitionOrder, got {number}"));
            false
        }
    }
}

impl FromRequest<v1::GetTransitionStatsRequest> for StatsFilter {
    const READS_REGISTRY: bool = true;

    fn from_request(request: v1::GetTransitionStatsRequest, check: &mut Validator) -> Self {
        let within = check.optional_within("created_within", request.created_within);
        StatsFilter {
            entity_type: check.stored_name("entity_type", request.entity_type),
            entity_id: check.optional_id::<EntityId>("entity_id", &request.entity_id),
            created_within_micros: within.unwrap_or(STATS_MICROS),
        }
    }
}

impl FromRequest<v1::WatchTransitionsRequest> for WatchRequest {
    const READS_REGISTRY: bool = true;
    const READS_PREFIX: bool = true;

    fn from_request(request: v1::WatchTransitionsRequest, check: &mut Validator) -> Self {
        let entity_id = check.optional_id::<EntityId>("entity_id", &request.entity_id);
        let snapshot = snapshot(check, &request);
        WatchRequest {
            wanted: TransitionMatch {
                entity_type: check.optional_stored_name("entity_type", request.entity_type),
                entity_id: entity_id.map(|id| id.0),
                transition_event: check
                    .optional_stored_name("transition_event", request.transition_event),
                to_state: check.optional_stored_state("to_state", request.to_state),
            },
            snapshot,
            begin: watch_begin(check, &request.namespace, request.begin),
        }
    }
}

/// Returns the states of the workflows to begin with, if the request asks for a snapshot.
fn snapshot(check: &mut Validator, request: &v1::WatchTransitionsRequest) -> Option<Vec<String>> {
    let given = &request.workflow_states;
    if !request.with_snapshot {
        if !given.is_empty() {
            check.violation("workflow_states", "needs with_snapshot");
        }
        return None;
    }
    if request.namespace.ends_with(WILDCARD) {
        check.violation("with_snapshot", "needs one namespace");
    }
    for (field, filter) in [
        ("transition_event", &request.transition_event),
        ("to_state", &request.to_state),
    ] {
        if !filter.is_empty() {
            let rule = "must be unset with with_snapshot, because a live copy needs every change";
            check.violation(field, rule);
        }
    }
    if !matches!(request.begin, None | Some(Begin::FromNow(true))) {
        check.violation(
            "with_snapshot",
            "must be unset unless the stream begins from_now",
        );
    }
    if given.len() > MAX_WORKFLOW_STATES {
        let rule = format!(
            "must have at most {MAX_WORKFLOW_STATES} items, got {}",
            given.len()
        );
        check.violation("workflow_states", rule);
        return None;
    }
    if given.is_empty() {
        return Some(
            ACTIVE_STATES
                .map(|state| state.as_str().to_owned())
                .to_vec(),
        );
    }
    let states = given.iter().enumerate();
    for (index, state) in states.filter(|(_, name)| !is_workflow_state(name)) {
        let names: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
        let rule = format!("must be one of {}, got {}", names.join(", "), quoted(state));
        check.violation(&format!("workflow_states[{index}]"), rule);
    }
    Some(given.clone())
}

fn is_workflow_state(name: &str) -> bool {
    State::ALL.iter().any(|state| state.as_str() == name)
}

fn watch_begin(check: &mut Validator, namespace: &str, begin: Option<Begin>) -> WatchBegin {
    match begin {
        Some(Begin::After(position)) => {
            WatchBegin::After(check.position("after", namespace, &position))
        }
        Some(Begin::FromStart(true)) => WatchBegin::Start,
        Some(Begin::FromNow(true)) | None => WatchBegin::Now,
        Some(Begin::FromStart(false)) => {
            check.violation("from_start", "must be true, or leave it unset");
            WatchBegin::Now
        }
        Some(Begin::FromNow(false)) => {
            check.violation("from_now", "must be true, or leave it unset");
            WatchBegin::Now
        }
        Some(Begin::AfterBridge(id)) => {
            if namespace.ends_with(WILDCARD) {
                let rule = "needs one namespace, because a bridge belongs to one";
                check.violation("after_bridge", rule);
            }
            WatchBegin::AfterBridge(check.id("after_bridge", &id))
        }
    }
}
