//! The subcommands of `bridgebook`.

mod closed_pipes;
mod data_dir;
mod fsm_show;
mod journal_tail;
mod quota;
mod token;
