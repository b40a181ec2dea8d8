//! FsmService: the state machines of tenants (fsm_machines), the entities that move by them
//! (fsm_entities), and the journal of every state change of all services (fsm_transitions).

mod convert;
pub mod model;
pub mod service;
pub(crate) mod store;
mod watch;
