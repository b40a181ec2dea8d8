//! Ids of other tenants. A conflict gives the same answer after the same statements, whether
//! the id belongs to the caller or to another tenant. In every other request, an id of
//! another tenant looks like an unused one.

mod lookups;
mod races;
mod requests;

use bridgebook::proto::v1::{self, WorkflowState};
use prost::Message;

use crate::{
    bridge_state, fsm,
    support::{App, Ran, Tap, Tenant, document, new_id, raw_call},
};

/// A call, with the ids and names in it.
struct Case {
    name: &'static str,
    method: &'static str,
    request: Vec<u8>,
    ids: Vec<String>,
    /// Whether the call stores a row. If so, its answer is not compared.
    stores: bool,
}

fn case(name: &'static str, method: &'static str, request: impl Message, ids: &[&String]) -> Case {
    Case {
        name,
        method,
        request: request.encode_to_vec(),
        ids: ids.iter().map(|id| (*id).clone()).collect(),
        stores: false,
    }
}

/// The outcome of a call: its answer, without the ids of the request, and the statements
/// that were run for it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    name: &'static str,
    answer: String,
    ran: Vec<Ran>,
}

async fn outcomes(tenant: &Tenant, tap: &Tap, cases: Vec<Case>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for case in cases {
        let method = format!("bridgebook.v1.{}", case.method);
        let mark = tap.mark();
        let answer = raw_call(&tenant.channel, &method, case.request).await;
        let ran = tap.since(mark);
        let mut answer = match answer {
            Ok(_) if case.stores => "stored".to_owned(),
            Ok(bytes) => format!("OK {}", bytes.escape_ascii()),
            Err(status) => refusal(&status),
        };
        for (number, id) in case.ids.iter().enumerate() {
            answer = answer.replace(id, &format!("<{number}>"));
        }
        // Errors name the namespace that the caller searched, and no other.
        answer = answer.replace(&tenant.namespace, "<namespace>");
        let name = case.name;
        outcomes.push(Outcome { name, answer, ran });
    }
    outcomes
}

/// Returns the content of a status, without its date and request id.
fn refusal(status: &tonic::Status) -> String {
    let mut headers = status.metadata().clone().into_headers();
    headers.remove("date");
    let mut headers: Vec<_> = headers.iter().collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    let (code, message) = (status.code(), status.message());
    let details = status.details().escape_ascii();
    let said = format!("{code:?} {message} {details} {headers:?}");
    let request_id = status.metadata().get("x-request-id").unwrap();
    said.replace(request_id.to_str().unwrap(), "<request>")
}

/// The content that is stored under a taken id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Little,
    Much,
    /// The same content as in the request, as far as another tenant can store it.
    TheSame,
}

impl Held {
    fn filler(self) -> Option<bridgebook::domain::json::Struct> {
        let length = if self == Held::Much { 100_000 } else { 1 };
        document(serde_json::json!({ "filler": "x".repeat(length) }))
    }
}

/// Returns calls with ids that `holder` has used for other rows.
async fn conflicts(holder: &Tenant, caller: &Tenant, held: Held) -> Vec<Case> {
    let mut cases = starts(holder, caller, held).await;
    cases.extend(appends(holder, caller, held).await);
    cases.extend(moves(holder, caller, held).await);
    cases
}

async fn starts(holder: &Tenant, caller: &Tenant, held: Held) -> Vec<Case> {
    let theirs = v1::StartWorkflowRequest {
        metadata: held.filler(),
        ..holder.new_workflow()
    };
    let taken = holder.start_as(theirs.clone()).await;
    let start = |id: &str, correlation_id: &str| v1::StartWorkflowRequest {
        id: id.into(),
        correlation_id: correlation_id.into(),
        workflow_type: "other".into(),
        ..caller.new_workflow()
    };
    let (id, correlation_id) = (&taken.id, &taken.correlation_id);
    let (new, free) = (new_id(), new_id());
    let same_content = v1::StartWorkflowRequest {
        namespace: caller.namespace.clone(),
        correlation_id: correlation_id.clone(),
        id: new.clone(),
        ..theirs
    };
    let method = "WorkflowService/StartWorkflow";
    vec![
        case(
            "correlation_id",
            method,
            start("", correlation_id),
            &[correlation_id],
        ),
        case("id", method, start(id, &free), &[&free, id]),
        case(
            "id and correlation_id",
            method,
            start(id, correlation_id),
            &[correlation_id, id],
        ),
        case(
            "correlation_id, the same content, another id",
            method,
            same_content,
            &[correlation_id, &new],
        ),
    ]
}

async fn appends(holder: &Tenant, caller: &Tenant, held: Held) -> Vec<Case> {
    let taken = &new_id();
    let step = v1::NewStep {
        id: taken.clone(),
        step_data: held.filler(),
        ..holder.new_step(&holder.start().await, 1)
    };
    holder.record_steps(vec![step]).await;
    let mine = caller.start().await;
    let step = v1::NewStep {
        id: taken.clone(),
        ..caller.new_step(&mine, 2)
    };

    let stamp = v1::NewStamp {
        id: taken.clone(),
        file_hash: "a".into(),
        ..v1::NewStamp::default()
    };
    let theirs = v1::NewStamp {
        stamp_data: held.filler().filter(|_| held != Held::TheSame),
        ..stamp.clone()
    };
    let theirs = requests::stamp(holder, theirs);
    holder.client.clone().record_stamp(theirs).await.unwrap();
    let of_workflow = v1::NewStamp {
        workflow_id: mine.id.clone(),
        ..stamp.clone()
    };
    let of_no_workflow = v1::NewStamp {
        workflow_id: new_id(),
        ..stamp.clone()
    };
    let ids = &[taken];
    vec![
        case(
            "step",
            "WorkflowService/RecordStep",
            requests::step(caller, step.clone()),
            ids,
        ),
        case(
            "steps",
            "WorkflowService/BatchRecordSteps",
            requests::steps(caller, step),
            ids,
        ),
        case(
            "stamp",
            "WorkflowService/RecordStamp",
            requests::stamp(caller, stamp.clone()),
            ids,
        ),
        case(
            "stamps",
            "WorkflowService/BatchRecordStamps",
            requests::stamps(caller, stamp),
            ids,
        ),
        case(
            "stamp of a workflow",
            "WorkflowService/RecordStamp",
            requests::stamp(caller, of_workflow),
            ids,
        ),
        case(
            "stamp of a workflow that is not there",
            "WorkflowService/RecordStamp",
            requests::stamp(caller, of_no_workflow.clone()),
            &[taken, &of_no_workflow.workflow_id],
        ),
    ]
}

async fn moves(holder: &Tenant, caller: &Tenant, held: Held) -> Vec<Case> {
    let (of_workflow, of_entity) = (new_id(), new_id());
    let theirs = v1::TransitionWorkflowRequest {
        transition_id: of_workflow.clone(),
        transition_data: held.filler(),
        ..holder.to(&holder.start().await, WorkflowState::Processing)
    };
    holder.transition(theirs).await;
    let order = new_id();
    let create = v1::NewTransition {
        transition_id: of_entity.clone(),
        ..fsm::transition(&order, "create", "NEW")
    };
    let theirs = match held {
        Held::TheSame => create.clone(),
        Held::Little | Held::Much => v1::NewTransition {
            entity_id: new_id(),
            transition_data: held.filler(),
            ..create.clone()
        },
    };
    fsm::record(holder, theirs).await.unwrap();
    let mine = caller.start().await;
    let mut cases = Vec::new();
    for taken in [&of_workflow, &of_entity] {
        let move_mine = v1::TransitionWorkflowRequest {
            transition_id: taken.clone(),
            ..caller.to(&mine, WorkflowState::Processing)
        };
        let create = v1::NewTransition {
            transition_id: taken.clone(),
            ..create.clone()
        };
        let ids = &[taken];
        cases.extend([
            case(
                "move of a workflow",
                "WorkflowService/TransitionWorkflow",
                move_mine,
                ids,
            ),
            case(
                "move of an entity",
                "FsmService/RecordTransition",
                requests::record(caller, create.clone()),
                ids,
            ),
            case(
                "moves of an entity",
                "FsmService/BatchRecordTransitions",
                requests::records(caller, create),
                ids,
            ),
        ]);
    }
    cases
}

#[tokio::test]
async fn a_conflict_gives_the_same_answer_and_statements_whoever_holds_the_id() {
    let (app, tap) = App::tapped().await;
    let mut scenes = Vec::new();
    for (is_own, held) in [
        (true, Held::Little),
        (true, Held::Much),
        (false, Held::Little),
        (false, Held::Much),
        (false, Held::TheSame),
    ] {
        let caller = app.tenant();
        let holder = if is_own { caller.clone() } else { app.tenant() };
        let cases = conflicts(&holder, &caller, held).await;
        scenes.push(outcomes(&caller, &tap, cases).await);
    }
    let (own, others) = scenes.split_first().unwrap();
    for outcome in own {
        let name = outcome.name;
        let is_late = name == "stamp of a workflow that is not there";
        let expected = if is_late {
            "WORKFLOW_NOT_FOUND"
        } else {
            "ID_CONFLICT"
        };
        assert!(outcome.answer.contains(expected), "{outcome:?}");
        assert!((1..=2).contains(&outcome.ran.len()), "{outcome:?}");
    }
    for scene in others {
        assert_eq!(own.len(), scene.len());
        for (own, other) in own.iter().zip(scene) {
            assert_eq!(own, other);
        }
    }
}

/// Within a namespace a bridge_id names the bridge and is never a conflict, so there is no
/// answer to compare with. The test shows that another tenant's row is not read.
#[tokio::test]
async fn only_the_existence_of_another_tenants_bridge_is_read() {
    let (app, tap) = App::tapped().await;
    let mut scenes = Vec::new();
    for held in [Held::Little, Held::Much] {
        let (holder, caller) = (app.tenant(), app.tenant());
        let id = new_id();
        let theirs = v1::UpsertBridgeStateRequest {
            aggregation_metadata: held.filler(),
            ..bridge_state::bridge(&holder, &id)
        };
        bridge_state::upsert(&holder, theirs).await.unwrap();
        let batch = bridge_state::batch(&caller, &id, 1);
        let cases = vec![
            case(
                "upsert",
                "BridgeStateService/UpsertBridgeState",
                bridge_state::bridge(&caller, &id),
                &[&id],
            ),
            case(
                "accumulate",
                "BridgeStateService/AccumulateBridgeState",
                batch,
                &[&id],
            ),
        ];
        scenes.push(outcomes(&caller, &tap, cases).await);
    }
    assert_eq!(scenes[0], scenes[1]);
    for outcome in &scenes[0] {
        let words =
            "AlreadyExists bridge_id <0> is already used by a bridge with different content";
        assert!(outcome.answer.starts_with(words), "{outcome:?}");
        assert_eq!(outcome.ran.len(), 1, "{outcome:?}");
    }
}
