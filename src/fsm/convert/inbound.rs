//! Requests. Every violation is collected.

use std::mem;

use prost_types::Timestamp;

use crate::{
    digest::RequestDigest,
    fsm::model::{
        BuiltIn, Definition, EntityFilter, EntityKey, FsmMove, MAX_MOVES, MachineDeletion,
        MachineFilter, MachineQuery, NewMachine, NewTransition, StatsFilter, TransitionFilter,
    },
    id::{EntityId, TransitionId},
    items::{many, single},
    namespace::TenantRequest,
    page::PageRequest,
    proto::v1,
    tenant_requests,
    validate::{Checker, Violations},
};

tenant_requests!(
    v1::PutMachineRequest,
    v1::GetMachineRequest,
    v1::ListMachinesRequest,
    v1::DeleteMachineRequest,
    v1::RecordTransitionRequest,
    v1::BatchRecordTransitionsRequest,
    v1::GetEntityRequest,
    v1::ListEntitiesRequest,
);

/// The journal's rows of the service's own are everybody's to read.
impl TenantRequest for v1::ListTransitionsRequest {
    const READS_RESERVED: bool = true;

    fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// See [`v1::ListTransitionsRequest`].
impl TenantRequest for v1::GetTransitionStatsRequest {
    const READS_RESERVED: bool = true;

    fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// How long the names in a machine may be together, in bytes. A batch of moves reads
/// the machine of every type in it.
const MAX_MACHINE_BYTES: usize = 64 * 1024;

/// How far GetTransitionStats looks back if the request does not say: 24 hours.
const STATS_MICROS: i64 = 24 * 3_600 * 1_000_000;

impl TryFrom<v1::PutMachineRequest> for NewMachine {
    type Error = Violations;

    fn try_from(request: v1::PutMachineRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let entity_type = machine_type(&mut check, request.entity_type);
        // The definition alone, in words that no other field of a request changes.
        let digest = RequestDigest::of(&v1::PutMachineRequest {
            initial_state: request.initial_state.clone(),
            terminal_states: request.terminal_states.clone(),
            moves: request.moves.clone(),
            ..v1::PutMachineRequest::default()
        });
        if request.expected_version.is_some_and(|version| version < 0) {
            check.violation("expected_version", "must not be negative");
        }
        for (field, count) in [
            ("terminal_states", request.terminal_states.len()),
            ("moves", request.moves.len()),
        ] {
            if count > MAX_MOVES {
                check.violation(field, format!("must not have more than {MAX_MOVES} items"));
            }
        }
        let ends = request.terminal_states.into_iter().take(MAX_MOVES);
        let ends = ends
            .enumerate()
            .map(|(index, state)| check.state(&format!("terminal_states[{index}]"), state));
        let terminal_states = ends.collect();
        let moves = request.moves.into_iter().take(MAX_MOVES).enumerate();
        let moves = moves.map(|(index, it)| machine_move(&mut check, index, it));
        let definition = Definition {
            moves: moves.collect(),
            initial_state: check.state("initial_state", request.initial_state),
            terminal_states,
        };
        if definition.text_len() > MAX_MACHINE_BYTES {
            let rule =
                format!("must not be longer than {MAX_MACHINE_BYTES} bytes of names together");
            check.violation("moves", rule);
        }
        let check = check.finish(()).map(|()| {
            let mut check = Checker::default();
            definition.check(&mut check);
            check
        })?;
        check.finish(NewMachine {
            entity_type,
            definition,
            digest,
            allow_stranded: request.allow_stranded,
            expected_version: request.expected_version,
        })
    }
}

fn machine_type(check: &mut Checker, text: String) -> String {
    let entity_type = check.name("entity_type", text);
    if let Some(built_in) = BuiltIn::named(&entity_type).filter(|it| !it.takes_machines()) {
        let service = built_in.moved_by().split('/').next().unwrap_or_default();
        check.violation(
            "entity_type",
            format!("must not be {entity_type}: {service} moves these by rules of its own"),
        );
    }
    entity_type
}

fn machine_move(check: &mut Checker, index: usize, it: v1::FsmMove) -> FsmMove {
    let field = |name| format!("moves[{index}].{name}");
    FsmMove {
        from_state: check.state(&field("from_state"), it.from_state),
        transition_event: check.name(&field("transition_event"), it.transition_event),
        to_state: check.state(&field("to_state"), it.to_state),
    }
}

impl TryFrom<v1::GetMachineRequest> for MachineQuery {
    type Error = Violations;

    fn try_from(request: v1::GetMachineRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        if request.version < 0 {
            check.violation("version", "must not be negative");
        }
        let query = MachineQuery {
            entity_type: check.name("entity_type", request.entity_type),
            version: Some(request.version).filter(|version| *version != 0),
        };
        check.finish(query)
    }
}

impl TryFrom<v1::ListMachinesRequest> for MachineFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListMachinesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        let page = PageRequest::read(&mut check, size, &token, "ListMachines", &request);
        check.finish(MachineFilter { page })
    }
}

impl TryFrom<v1::DeleteMachineRequest> for MachineDeletion {
    type Error = Violations;

    fn try_from(request: v1::DeleteMachineRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let deletion = MachineDeletion {
            entity_type: machine_type(&mut check, request.entity_type),
            allow_missing: request.allow_missing,
        };
        check.finish(deletion)
    }
}

impl TryFrom<v1::RecordTransitionRequest> for NewTransition {
    type Error = Violations;

    fn try_from(request: v1::RecordTransitionRequest) -> Result<Self, Violations> {
        single(request.transition, "transition", new_transition)
    }
}

impl TryFrom<v1::BatchRecordTransitionsRequest> for Vec<Result<NewTransition, Violations>> {
    type Error = Violations;

    fn try_from(request: v1::BatchRecordTransitionsRequest) -> Result<Self, Violations> {
        many(request.transitions, "transitions", new_transition)
    }
}

fn new_transition(field: &str, mut new: v1::NewTransition) -> Result<NewTransition, Violations> {
    let mut check = Checker::within(field);
    let chosen_id = check.optional_id("transition_id", &mem::take(&mut new.transition_id));
    new.entity_id.make_ascii_lowercase();
    new.transition_data = new.transition_data.filter(|document| !document.is_empty());
    // A condition is no content: whoever looks again before a retry expects another.
    let from_state = new.from_state.take();
    let request_digest = RequestDigest::of(&new);
    let entity_type = check.name("entity_type", new.entity_type);
    if let Some(built_in) = BuiltIn::named(&entity_type) {
        let rpc = built_in.moved_by();
        check.violation(
            "entity_type",
            format!("must not be {entity_type}: call {rpc}"),
        );
    }
    let new = NewTransition {
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
    };
    check.finish(new)
}

impl TryFrom<v1::GetEntityRequest> for EntityKey {
    type Error = Violations;

    fn try_from(request: v1::GetEntityRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let key = EntityKey {
            entity_type: own_type(&mut check, request.entity_type, BuiltIn::read_by),
            entity_id: check.id("entity_id", &request.entity_id),
        };
        check.finish(key)
    }
}

/// A type whose entities are read here; those of others are read by other RPCs.
fn own_type(check: &mut Checker, text: String, rpc: impl Fn(BuiltIn) -> &'static str) -> String {
    let entity_type = check.name("entity_type", text);
    if let Some(built_in) = BuiltIn::named(&entity_type) {
        let rpc = rpc(built_in);
        check.violation(
            "entity_type",
            format!("must not be {entity_type}: call {rpc}"),
        );
    }
    entity_type
}

impl TryFrom<v1::ListEntitiesRequest> for EntityFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListEntitiesRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        let page = PageRequest::read(&mut check, size, &token, "ListEntities", &request);
        let before: Option<&Timestamp> = request.state_since_before.as_ref();
        let filter = EntityFilter {
            entity_type: own_type(&mut check, request.entity_type, BuiltIn::listed_by),
            current_state: check.optional_state("current_state", request.current_state),
            state_since_before: check.optional_time("state_since_before", before),
            page,
        };
        check.finish(filter)
    }
}

impl TryFrom<v1::ListTransitionsRequest> for TransitionFilter {
    type Error = Violations;

    fn try_from(mut request: v1::ListTransitionsRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let size = mem::take(&mut request.page_size);
        let token = mem::take(&mut request.page_token);
        request.entity_id.make_ascii_lowercase();
        let is_newest_first = is_newest_first(&mut check, request.order);
        // That nothing was said of the order, and what it is then, are the same query.
        request.order = is_newest_first.into();
        let page = PageRequest::read(&mut check, size, &token, "ListTransitions", &request);
        let filter = TransitionFilter {
            entity_type: check.name("entity_type", request.entity_type),
            entity_id: check.optional_id::<EntityId>("entity_id", &request.entity_id),
            transition_event: check.optional_name("transition_event", request.transition_event),
            from_state: check.optional_state("from_state", request.from_state),
            to_state: check.optional_state("to_state", request.to_state),
            created_after: check.optional_time("created_after", request.created_after.as_ref()),
            created_before: check.optional_time("created_before", request.created_before.as_ref()),
            is_newest_first,
            page,
        };
        check.finish(filter)
    }
}

fn is_newest_first(check: &mut Checker, number: i32) -> bool {
    match v1::TransitionOrder::try_from(number) {
        Ok(v1::TransitionOrder::Unspecified | v1::TransitionOrder::OldestFirst) => false,
        Ok(v1::TransitionOrder::NewestFirst) => true,
        Err(_) => {
            check.violation("order", format!("must be a TransitionOrder, not {number}"));
            false
        }
    }
}

impl TryFrom<v1::GetTransitionStatsRequest> for StatsFilter {
    type Error = Violations;

    fn try_from(request: v1::GetTransitionStatsRequest) -> Result<Self, Violations> {
        let mut check = Checker::default();
        let within = check.optional_within("created_within", request.created_within);
        let filter = StatsFilter {
            entity_type: check.name("entity_type", request.entity_type),
            entity_id: check.optional_id::<EntityId>("entity_id", &request.entity_id),
            created_within_micros: within.unwrap_or(STATS_MICROS),
        };
        check.finish(filter)
    }
}
