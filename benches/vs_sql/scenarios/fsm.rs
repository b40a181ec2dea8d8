//! Scenarios of FsmService.

use bridgebook::proto::v1::{
    NewTransition, RecordTransitionRequest, RecordTransitionResponse, fsm_service_server,
};

use super::{NAMESPACE, Random, expect, numbered_id};
use crate::{Result, load::Call, scenario::Scenario, seed::seed, stage::Stage};

/// The number of entities: enough for little contention, and few enough that full-page writes
/// do not dominate. PostgreSQL logs a full page at its first change after a checkpoint.
pub const ALL_ENTITIES: u64 = 20_000;

/// The number of entities in the scenario with contention.
pub const HOT_ENTITIES: u64 = 4;

/// The entity type. The scripts use the same one.
const ENTITY_TYPE: &str = "valve";

/// RecordTransition with a machine of two states: each call moves one of the first `ENTITIES`
/// entities to its other state.
#[derive(Default)]
pub struct Record<const ENTITIES: u64> {
    random: Random,
}

impl<const ENTITIES: u64> Call for Record<ENTITIES> {
    type Request = RecordTransitionRequest;
    type Response = RecordTransitionResponse;
    const SERVICE: &'static str = fsm_service_server::SERVICE_NAME;
    const METHOD: &'static str = "RecordTransition";
    const TITLE: &'static str = match ENTITIES {
        HOT_ENTITIES => "RecordTransition, 4 hot entities",
        _ => "RecordTransition",
    };

    fn request(&self) -> RecordTransitionRequest {
        RecordTransitionRequest {
            namespace: NAMESPACE.to_owned(),
            transition: Some(NewTransition {
                transition_id: self.random.id(),
                entity_type: ENTITY_TYPE.to_owned(),
                entity_id: numbered_id(self.random.up_to(ENTITIES)),
                transition_event: "toggle".to_owned(),
                ..NewTransition::default()
            }),
        }
    }

    fn check(&self, response: RecordTransitionResponse) -> Result<()> {
        expect(response.applied, "the move was already applied")
    }
}

impl<const ENTITIES: u64> Scenario for Record<ENTITIES> {
    const SCRIPT: &'static str = "record.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("entities", ENTITIES)]
    }

    /// Inserts the machine and its entities, unless they exist.
    async fn prepare(&self, stage: &Stage, database: &str) -> Result<()> {
        stage
            .execute(database, include_str!("../seed_machine.sql"))
            .await?;
        seed(
            stage,
            database,
            include_str!("../seed_entities.sql"),
            ALL_ENTITIES,
        )
        .await
    }

    /// Vacuums the dead rows that moves leave, as autovacuum does in production.
    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        stage.execute(database, "VACUUM fsm_entities").await
    }
}
