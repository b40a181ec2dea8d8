//! A bridge that consumers count in, and its comparison with the journal.

use std::time::Duration;

use bridgebook::{
    client::{Client, retry::with_retries},
    domain::position::Position,
    proto::v1::{FsmTransition, UpsertBridgeStateRequest},
};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use tonic::Status;
use uuid::Uuid;

use super::{
    account::Account,
    journal::{Filter, Journal, at},
};
use crate::{
    Result,
    verdict::{Kind, Verdict},
};

/// What rows add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Their number.
    pub rows: i64,
    /// The sum of a part of their ids. It differs if one row is counted in place of another.
    pub sum: i64,
}

impl Totals {
    /// Adds rows.
    pub fn add(&mut self, transitions: &[FsmTransition]) {
        for it in transitions {
            self.add_id(it.id.parse().unwrap_or_default());
        }
    }

    fn add_id(&mut self, id: Uuid) {
        self.rows += 1;
        // The last 32 bits are random. The sum of a billion of them does not overflow.
        self.sum += (id.as_u128() & u128::from(u32::MAX)) as i64;
    }
}

/// A bridge, and the rows that it counts.
#[derive(Debug, Clone, Copy)]
pub struct Bridge {
    /// Its id.
    pub id: Uuid,
    /// What it counts.
    pub filter: Filter,
}

impl Bridge {
    /// Stores a new bridge.
    pub async fn create(client: &Client, filter: Filter) -> Result<Self, Status> {
        let id = Uuid::now_v7();
        let request = UpsertBridgeStateRequest {
            namespace: filter.namespace.into(),
            bridge_id: id.to_string(),
            current_fsm_state: "IDLE".into(),
            ..UpsertBridgeStateRequest::default()
        };
        let call = async || client.bridges().upsert_bridge_state(request.clone()).await;
        with_retries(Duration::MAX, call).await?;
        Ok(Bridge { id, filter })
    }

    /// Compares the totals and the position with the journal up to its end.
    pub async fn check(
        &self,
        url: &str,
        journal: &Journal,
        end: Position,
        verdict: &mut Verdict,
    ) -> Result<Account> {
        let mut database = bridgebook::db::connect(&url.parse()?).await?;
        let query = diesel::sql_query(
            "SELECT total_workflows_processed AS rows, total_items_aggregated AS sum,
                    consumed_xid::text::bigint AS xid, consumed_seq AS seq,
                    consumed_transition_id AS id
               FROM bridge_states WHERE bridge_id = $1",
        );
        let query = query.bind::<SqlUuid, _>(self.id);
        let stored: Stored = query.get_result(&mut database).await?;
        let mut expected = Totals::default();
        for row in journal.rows(self.filter, end) {
            expected.add_id(row.position().transition_id.0);
        }
        let mut account = Account::new(format!("bridge of {}", self.filter));
        account.rows = usize::try_from(stored.rows).unwrap_or_default();
        let Totals { rows, sum } = expected;
        if (stored.rows, stored.sum) != (rows, sum) {
            let counted = format!("counted {} rows (sum {})", stored.rows, stored.sum);
            let what = format!("{}: {counted} of {rows} (sum {sum})", account.name);
            verdict.add(Kind::Miscounted, what, (stored.rows - rows).abs().max(1));
        }
        let consumed = stored.position();
        if consumed != end {
            let (name, consumed, end) = (&account.name, at(consumed), at(end));
            let what = format!("{name}: consumed through {consumed}, the journal ends with {end}");
            verdict.add(Kind::Miscounted, what, 1);
        }
        Ok(account)
    }
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    sum: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    xid: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    seq: Option<i64>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    id: Option<Uuid>,
}

impl Stored {
    fn position(&self) -> Position {
        Position {
            xid: self.xid.unwrap_or_default().unsigned_abs(),
            seq: self.seq.unwrap_or_default(),
            transition_id: self.id.unwrap_or_default().into(),
        }
    }
}
