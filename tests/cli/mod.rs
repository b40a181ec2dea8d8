//! The subcommands of `bridgebook`.

mod closed_pipes;
mod data_dir;
mod fsm_show;
mod quota;
mod token;
