//! The service as a process: its settings, restarts, upgrades, and crashes under load.

mod chaos;
mod rolling_restart;
mod settings;
mod signals;
mod upgrade;
