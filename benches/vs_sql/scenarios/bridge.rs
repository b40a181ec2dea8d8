//! BridgeStateService.

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, AccumulateBridgeStateResponse, bridge_state_service_server,
};

use super::{NAMESPACE, Random, expect, numbered_id};
use crate::{
    Result,
    scenario::{Call, Scenario},
    seed::seed,
    stage::Stage,
};

/// How many bridges there are: enough for PostgreSQL to use the index, as it does
/// in production.
const ALL_BRIDGES: u64 = 1000;

/// How many of them are added to.
const BUSY_BRIDGES: u64 = 16;

/// AccumulateBridgeState, each call a new batch of one of a few bridges.
#[derive(Default)]
pub struct Accumulate {
    random: Random,
}

impl Call for Accumulate {
    type Request = AccumulateBridgeStateRequest;
    type Answer = AccumulateBridgeStateResponse;
    const SERVICE: &'static str = bridge_state_service_server::SERVICE_NAME;
    const METHOD: &'static str = "AccumulateBridgeState";
    const TITLE: &'static str = "AccumulateBridgeState, 16 bridges";

    fn request(&self) -> AccumulateBridgeStateRequest {
        AccumulateBridgeStateRequest {
            namespace: NAMESPACE.to_owned(),
            bridge_id: numbered_id(self.random.up_to(BUSY_BRIDGES)),
            batch_id: self.random.id(),
            workflows_processed: 3,
            items_aggregated: 40,
            ..AccumulateBridgeStateRequest::default()
        }
    }

    fn check(&self, answer: AccumulateBridgeStateResponse) -> Result<()> {
        expect(answer.applied, "the batch was added before")
    }
}

impl Scenario for Accumulate {
    const SCRIPT: &'static str = "accumulate.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("bridges", BUSY_BRIDGES)]
    }

    /// Begins with new bridges and no batches: what was there before would be
    /// more for the side that is measured more often.
    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        stage
            .execute(database, "TRUNCATE bridge_states, bridge_batches")
            .await?;
        seed(
            stage,
            database,
            include_str!("../seed_bridges.sql"),
            ALL_BRIDGES,
        )
        .await?;
        stage
            .execute(database, "VACUUM ANALYZE bridge_states")
            .await
    }

    /// The totals have to be those of the batches, on both sides.
    async fn after(&self, stage: &Stage, database: &str) -> Result<()> {
        let missing = "SELECT count(*) AS number
                         FROM (SELECT bridge_id, sum(items_aggregated) AS total
                                 FROM bridge_batches GROUP BY bridge_id) batches
                         JOIN bridge_states USING (bridge_id)
                        WHERE total_items_aggregated <> total";
        match stage.number(database, missing).await? {
            0 => Ok(()),
            wrong => Err(format!("{wrong} bridges have not the total of their batches").into()),
        }
    }
}
