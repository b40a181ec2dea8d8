//! The service and its database: outages, failover, poolers, plans, migrations.

mod cancellation;
mod failover;
mod migrations;
mod outage;
mod pgbouncer;
mod plans;
mod restore;
