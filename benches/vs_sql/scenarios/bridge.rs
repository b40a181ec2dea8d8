//! Scenarios of BridgeStateService.

use bridgebook::proto::v1::{
    AccumulateBridgeStateRequest, AccumulateBridgeStateResponse, bridge_state_service_server,
};

use super::{NAMESPACE, Random, expect, numbered_id};
use crate::{Result, load::Call, scenario::Scenario, seed::seed, stage::Stage};

/// The number of bridges: enough for PostgreSQL to use the index, as in production.
const ALL_BRIDGES: u64 = 1000;

/// The number of bridges that receive batches.
const BUSY_BRIDGES: u64 = 16;

/// AccumulateBridgeState: each call adds a new batch to one of a few bridges.
#[derive(Default)]
pub struct Accumulate {
    random: Random,
}

impl Call for Accumulate {
    type Request = AccumulateBridgeStateRequest;
    type Response = AccumulateBridgeStateResponse;
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

    fn check(&self, response: AccumulateBridgeStateResponse) -> Result<()> {
        expect(response.applied, "the batch was already applied")
    }
}

impl Scenario for Accumulate {
    const SCRIPT: &'static str = "accumulate.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("bridges", BUSY_BRIDGES)]
    }

    /// Starts with new bridges and no batches. Otherwise the side with more measurements
    /// would work on larger tables.
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

    /// Fails unless the totals equal the sums of the batches.
    async fn after(&self, stage: &Stage, database: &str) -> Result<()> {
        let missing = "SELECT count(*) AS number
                         FROM (SELECT bridge_id, sum(items_aggregated) AS total
                                 FROM bridge_batches GROUP BY bridge_id) batches
                         JOIN bridge_states USING (bridge_id)
                        WHERE total_items_aggregated <> total";
        match stage.number(database, missing).await? {
            0 => Ok(()),
            wrong => Err(format!(
                "{wrong} bridges have a total that differs from the sum of their batches"
            )
            .into()),
        }
    }
}
