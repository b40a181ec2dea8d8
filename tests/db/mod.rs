//! The service and its database: outages, failover, poolers, plans, migrations.

mod abandoned_logins;
mod address_files;
mod cancellation;
mod encrypted_failover;
mod encrypted_pgbouncer;
mod ended_calls;
mod failover;
mod grants;
mod large_batches;
mod lock_order;
mod locks;
mod lost_answers;
mod messages;
mod migrations;
mod outage;
mod panics;
mod pgbouncer;
mod plans;
mod restore;
mod tls;
mod turns;
mod unlimited;
mod vanishing_rows;
mod writes;
