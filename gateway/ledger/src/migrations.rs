//! The schema's history, a line a version, in the types of each database.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::borrow::Cow;

macro_rules! migrations {
    ($($version:literal $name:literal $file:literal;)*) => {
        const SQLITE: &[(i64, &str, &str)] =
            &[$(($version, $name, include_str!(concat!("../migrations/sqlite/", $file))),)*];
        const POSTGRES: &[(i64, &str, &str)] =
            &[$(($version, $name, include_str!(concat!("../migrations/postgres/", $file))),)*];
    };
}

migrations! {
    1 "requests and keys" "0001_requests_and_keys.sql";
    2 "degradation and price lists" "0002_degradation_and_price_lists.sql";
    3 "rollups" "0003_rollups.sql";
    4 "models and use of keys" "0004_keys_models_and_use.sql";
    5 "jobs" "0005_jobs.sql";
    6 "intents" "0006_intents.sql";
    7 "files and batches" "0007_files_and_batches.sql";
    8 "jobs of any call" "0008_jobs_of_any_call.sql";
    9 "client request ids" "0009_client_request_ids.sql";
    10 "stored responses" "0010_stored_responses.sql";
    11 "expiry of files" "0011_expiry_of_files.sql";
    12 "operations" "0012_operations.sql";
    13 "labels and rotation of keys" "0013_labels_and_rotation_of_keys.sql";
    14 "items of stored responses" "0014_items_of_stored_responses.sql";
    15 "spans" "0015_spans.sql";
    16 "gateways" "0016_gateways.sql";
    17 "lists of files and batches" "0017_lists_of_files_and_batches.sql";
    18 "escrow" "0018_escrow.sql";
    19 "contents of files" "0019_contents_of_files.sql";
    20 "claims" "0020_claims.sql";
    21 "shares" "0021_shares.sql";
    22 "evictions" "0022_evictions.sql";
    23 "objectives" "0023_objectives.sql";
    24 "sharers that have told" "0024_sharers_that_have_told.sql";
    25 "coordination" "0025_coordination.sql";
    26 "figures of gateways" "0026_figures_of_gateways.sql";
}

/// Brings a database to the newest version.
pub(crate) fn migrator(is_sqlite: bool) -> Migrator {
    let migrations = if is_sqlite { SQLITE } else { POSTGRES };
    let migrations = migrations.iter().map(|(version, name, sql)| {
        Migration::new(
            *version,
            Cow::Borrowed(*name),
            MigrationType::Simple,
            Cow::Borrowed(*sql),
            false,
        )
    });
    Migrator {
        migrations: Cow::Owned(migrations.collect()),
        ..Migrator::DEFAULT
    }
}
