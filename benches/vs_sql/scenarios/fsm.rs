//! FsmService.

use bridgebook::proto::v1::{
    NewTransition, RecordTransitionRequest, RecordTransitionResponse, fsm_service_server,
};

use super::{NAMESPACE, Random, expect, numbered_id};
use crate::{
    Result,
    scenario::{Call, Scenario},
    seed::seed,
    stage::Stage,
};

/// How many entities there are: so many that callers seldom meet at one, and few
/// enough that a measurement is about moves, and not about the full copy of a page
/// that PostgreSQL logs when it first changes one after a checkpoint.
pub const ALL_ENTITIES: u64 = 20_000;

/// How many there are that everybody moves.
pub const HOT_ENTITIES: u64 = 4;

/// What sort of entities they are; the scripts say the same.
const ENTITY_TYPE: &str = "valve";

/// RecordTransition by a machine of two states, each call one of the first
/// `ENTITIES` entities, which goes to the state that it is not in.
#[derive(Default)]
pub struct Record<const ENTITIES: u64> {
    random: Random,
}

impl<const ENTITIES: u64> Call for Record<ENTITIES> {
    type Request = RecordTransitionRequest;
    type Answer = RecordTransitionResponse;
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

    fn check(&self, answer: RecordTransitionResponse) -> Result<()> {
        expect(answer.applied, "the move was made before")
    }
}

impl<const ENTITIES: u64> Scenario for Record<ENTITIES> {
    const SCRIPT: &'static str = "record.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("entities", ENTITIES)]
    }

    /// Makes the machine and its entities, unless they are there.
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

    /// Every move leaves a dead row, which production would have vacuumed.
    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        stage.execute(database, "VACUUM fsm_entities").await
    }
}
