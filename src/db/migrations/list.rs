//! The embedded migrations.

/// A migration. build.rs lists those in the folder `migrations`.
pub(super) struct Migration {
    /// Its name: `001_create_workflow_executions`.
    pub(super) name: &'static str,
    /// The text of up.sql.
    pub(super) up: &'static str,
    /// The text of down.sql.
    pub(super) down: &'static str,
}

/// All migrations, in their order.
pub(super) const ALL: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

impl Migration {
    /// Returns its number: `001`.
    pub(super) fn version(&self) -> &'static str {
        let parts = self.name.split_once('_');
        parts.map_or(self.name, |(version, _)| version)
    }
}
