//! The subcommands of `bridgebook`.

mod fsm_show;
mod token;
