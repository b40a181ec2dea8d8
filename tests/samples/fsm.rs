//! Samples of FsmService.

use bridgebook::proto::Rpc;
use serde_json::{Value, json};

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    let sample = match rpc {
        Rpc::FsmServicePutMachine => put_machine(),
        Rpc::FsmServiceGetMachine => Sample::new(json!({"entity_type": "$type", "version": null}))
            .or(json!({"version": 1}))
            .missing("MACHINE_NOT_FOUND"),
        Rpc::FsmServiceListMachines => Sample::new(json!({})),
        Rpc::FsmServiceDeleteMachine => Sample::new(json!({"entity_type": "$type"}))
            .or(json!({"allow_missing": true}))
            .missing("MACHINE_NOT_FOUND"),
        Rpc::FsmServiceRecordTransition => {
            record("transition", transition()).makes(&["transition", "entity"])
        }
        Rpc::FsmServiceBatchRecordTransitions => record("transitions", json!([transition()])),
        Rpc::FsmServiceGetEntity => {
            Sample::new(json!({"entity_type": "$type", "entity_id": "$entity"}))
                .missing("ENTITY_NOT_FOUND")
        }
        Rpc::FsmServiceListEntities => Sample::new(json!({"entity_type": "$type"})),
        Rpc::FsmServiceListTransitions | Rpc::FsmServiceGetTransitionStats => journal(),
        Rpc::FsmServiceWatchTransitions => watch(),
        _ => return None,
    };
    Some(sample)
}

/// The machine starts in S1. "go" leads to S1 from every state; "next" goes round.
fn put_machine() -> Sample {
    let moves = |states: &[&str]| {
        let mut moves = vec![json!({
            "from_state": "~S1", "transition_event": "~end", "to_state": "~END",
        })];
        for (place, state) in states.iter().enumerate() {
            let next = states[(place + 1) % states.len()];
            for (event, to) in [("~go", "~S1"), ("~next", next)] {
                moves.push(json!({
                    "from_state": state, "transition_event": event, "to_state": to,
                }));
            }
        }
        Value::Array(moves)
    };
    Sample::new(json!({
        "entity_type": "&type",
        "initial_state": "~S1",
        "terminal_states": ["~END"],
        "moves": moves(&["~S1", "~S2", "~S3"]),
    }))
    .or(json!({"moves": moves(&["~S1", "~S2"])}))
    .or(json!({"allow_stranded": true}))
    .makes(&["type"])
}

fn transition() -> Value {
    json!({
        "transition_id": "+transition",
        "entity_type": "&type",
        "entity_id": "&entity",
        "to_state": "~S1",
        "transition_event": "~go",
        "transition_data": {"text": "~data"},
    })
}

/// Where no machine exists, to_state is required.
fn record(field: &str, items: Value) -> Sample {
    Sample::new(json!({ field: items }))
        .or(json!({field: {"transition_id": ""}}))
        .or(json!({field: {"to_state": "~S2", "transition_event": "~next"}}))
        .or_with_machine(json!({field: {"to_state": ""}}))
        .or(json!({field: {"transition_data": {"text": "~other"}}}))
}

fn journal() -> Sample {
    Sample::new(json!({"entity_type": "$type"}))
        .or(json!({"entity_id": "$entity"}))
        .or(json!({"entity_type": "workflow"}))
        .or(json!({"entity_type": "bridge"}))
        .or(json!({"entity_type": "node"}))
        .reads_reserved()
}

fn watch() -> Sample {
    Sample::new(json!({
        "after": null, "from_now": null, "from_start": true, "after_bridge": null,
        "with_snapshot": null, "workflow_states": null,
    }))
    .or(json!({"entity_type": "$type"}))
    .or(json!({"entity_id": "$entity"}))
    .or(json!({"transition_event": "~event"}))
    .or(json!({"to_state": "~S1"}))
    .reads_reserved()
}
