//! The rights that the service's role needs on the tables, and a check for missing ones.
//!
//! A role that lacks one would serve, and fail the calls that need it. `bridgebook database grants`
//! prints them as GRANT statements; `tests/db/grants.rs` runs the service with exactly those.

use diesel::{
    QueryableByName,
    result::Error as DieselError,
    sql_types::{Array, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    DatabaseAddress,
    connect::connect_to_any,
    migrations::MigrationError,
    planner::raw_statement,
    sql_state::{INSUFFICIENT_PRIVILEGE, UNDEFINED_TABLE, sql_state},
};

/// Diesel's table of applied migrations.
const MIGRATIONS: &str = "__diesel_schema_migrations";

/// The rights that the statements of the service need on each table or sequence. FOR UPDATE needs
/// UPDATE, too.
pub const NEEDED: &[(&str, &[&str])] = &[
    (MIGRATIONS, &["SELECT"]),
    ("api_tokens", &["SELECT", "INSERT", "UPDATE"]),
    ("bridge_batches", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("bridge_revisions", &["SELECT", "INSERT", "UPDATE"]),
    ("bridge_states", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("fsm_entities", &["SELECT", "INSERT", "UPDATE"]),
    ("fsm_entity_types", &["SELECT", "INSERT", "UPDATE"]),
    ("fsm_machines", &["SELECT", "INSERT", "DELETE"]),
    ("fsm_transitions", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    // Metrics count the journal by it.
    ("fsm_transitions_seq_seq", &["SELECT"]),
    ("journal_cluster", &["SELECT", "INSERT", "UPDATE"]),
    ("journal_floors", &["SELECT", "INSERT", "UPDATE"]),
    ("metadata_stamps", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    (
        "node_registrations",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
    ),
    ("page_token_key", &["SELECT", "INSERT"]),
    ("quotas", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    (
        "retention_policies",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
    ),
    (
        "workflow_executions",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
    ),
    ("workflow_steps", &["SELECT", "INSERT", "DELETE"]),
];

raw_statement! {
/// Selects a GRANT for each schema of the search path that holds the tables, but that the role
/// may not use. Without that right the schema looks empty.
const MISSING_ON_SCHEMAS(Text) = "
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user) AS statement
      FROM unnest(string_to_array(current_setting('search_path'), ',')) AS path (name)
      JOIN pg_namespace n
        ON n.nspname = CASE trim(path.name, ' \"') WHEN '$user' THEN current_user
                       ELSE trim(path.name, ' \"') END
     WHERE NOT has_schema_privilege(n.oid, 'USAGE')
       AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = $1)";
}

raw_statement! {
/// Selects a GRANT for each table or sequence that exists, but on which the role lacks rights.
const MISSING_ON_TABLES(Array<Text>, Array<Text>) = "
    SELECT format('GRANT %s ON %s %I.%I TO %I', string_agg(need.verb, ', ' ORDER BY ordinality),
                  CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname, current_user) AS statement
      FROM unnest($1, $2) WITH ORDINALITY AS need (name, verb, ordinality)
      JOIN pg_class c ON c.oid = to_regclass(quote_ident(need.name))
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT has_table_privilege(c.oid, need.verb)
     GROUP BY n.nspname, c.relname, c.relkind ORDER BY min(ordinality)";
}

/// Returns the GRANT statements that give a role all that the service needs on the tables of a schema.
#[must_use]
pub fn statements(schema: &str, role: &str) -> Vec<String> {
    let (schema, role) = (identifier(schema), identifier(role));
    let mut all = vec![format!("GRANT USAGE ON SCHEMA {schema} TO {role}")];
    all.extend(NEEDED.iter().map(|(name, verbs)| {
        let (verbs, kind) = (verbs.join(", "), kind(name));
        format!("GRANT {verbs} ON {kind} {schema}.{name} TO {role}")
    }));
    all
}

/// Returns a name as an identifier of SQL, in quotes.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the GRANT statements that the role of a database URL lacks. Tables that do not exist yet
/// are left out: the role that creates them owns them.
///
/// # Errors
/// [`MigrationError::Connect`] and [`MigrationError::Statement`].
pub async fn missing(address: &DatabaseAddress) -> Result<Vec<String>, MigrationError> {
    #[derive(QueryableByName)]
    struct Missing {
        #[diesel(sql_type = Text)]
        statement: String,
    }
    let mut connection = connect_to_any(address).await?;
    let rights = NEEDED.iter();
    let rights = rights.flat_map(|(table, verbs)| verbs.iter().map(move |verb| (*table, *verb)));
    let (tables, verbs): (Vec<&str>, Vec<&str>) = rights.unzip();
    let mut all: Vec<Missing> = diesel::sql_query(MISSING_ON_SCHEMAS)
        .bind::<Text, _>(MIGRATIONS)
        .load(&mut *connection)
        .await?;
    let on_tables: Vec<Missing> = diesel::sql_query(MISSING_ON_TABLES)
        .bind::<Array<Text>, _>(tables)
        .bind::<Array<Text>, _>(verbs)
        .load(&mut *connection)
        .await?;
    all.extend(on_tables);
    Ok(all.into_iter().map(|row| row.statement).collect())
}

/// Returns the GRANT statement for the right that a failed statement needs, if the error names a table of
/// the service. A right can be revoked, or a table replaced, while the service runs.
///
/// PostgreSQL does not look for tables in a schema that the role may not use. So a table that the
/// service has used before "does not exist" any more.
#[must_use]
pub fn missing_at_run_time(error: &DieselError) -> Option<String> {
    let DieselError::DatabaseError(_, information) = error else {
        return None;
    };
    let (name, verbs) = named(information.message())?;
    match sql_state(error)? {
        UNDEFINED_TABLE => Some(format!(
            "GRANT USAGE ON SCHEMA <the schema of {name}> TO {ROLE} (unless {name} has been dropped)"
        )),
        INSUFFICIENT_PRIVILEGE => Some(format!(
            "GRANT {} ON {} {name} TO {ROLE} (unless a row-level security policy forbids the row)",
            verbs.join(", "),
            kind(name)
        )),
        _ => None,
    }
}

/// Returns the service's table or sequence that a message names. Works for messages in any language,
/// because names are not translated.
fn named(message: &str) -> Option<(&'static str, &'static [&'static str])> {
    let is_in_name = |it: char| it.is_alphanumeric() || it == '_';
    let mut words = message.split(|it| !is_in_name(it));
    words.find_map(|word| NEEDED.iter().copied().find(|(name, _)| *name == word))
}

/// Returns what GRANT calls a table or a sequence.
fn kind(name: &str) -> &'static str {
    match name.ends_with("_seq") {
        true => "SEQUENCE",
        false => "TABLE",
    }
}

/// Stands for the role in a GRANT statement: PostgreSQL's message does not name it.
const ROLE: &str = "<the role of --database-url>";

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::*;

    #[test]
    fn a_right_that_is_lost_at_run_time_is_named_as_the_grant_that_gives_it() {
        for (message, expected) in [
            (
                "42501: permission denied for table workflow_steps",
                Some("GRANT SELECT, INSERT, DELETE ON TABLE workflow_steps TO <"),
            ),
            (
                "42501: keine Berechtigung für Sequenz fsm_transitions_seq_seq",
                Some("GRANT SELECT ON SEQUENCE fsm_transitions_seq_seq TO <"),
            ),
            (
                "42P01: Relation »workflow_steps« existiert nicht",
                Some("GRANT USAGE ON SCHEMA <the schema of workflow_steps> TO <"),
            ),
            (
                "42501: new row violates row-level security policy for table \"quotas\"",
                Some("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE quotas TO <"),
            ),
            // A table of a trigger that the operator has added.
            ("42P01: relation \"audit\" does not exist", None),
            (
                "42501: permission denied for table audit_workflow_steps",
                None,
            ),
            ("40P01: deadlock detected on workflow_steps", None),
        ] {
            let information = Box::new(message.to_owned());
            let error = DieselError::DatabaseError(DatabaseErrorKind::Unknown, information);
            let grant = missing_at_run_time(&error);
            let fits = match (&grant, expected) {
                (Some(grant), Some(expected)) => grant.starts_with(expected),
                (grant, expected) => grant.is_none() && expected.is_none(),
            };
            assert!(fits, "{message}: {grant:?}");
        }
    }
}
