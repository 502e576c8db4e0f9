//! `sluice keys`: make, list and revoke API keys in the gateway's database. A running gateway takes a
//! change over within a second.

use super::{ConfigArgs, Failure};
use crate::clock::now_ms;
use crate::config::{self, Config};
use crate::identity::{self, KEY_PREFIX, Key};
use crate::ledger;
use clap::{Args, Subcommand};
use policy::KeyId;
use sqlx::sqlite::SqlitePool;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key and print it, once.
    Create {
        /// Whose key.
        #[arg(long)]
        user: String,
        /// The project it is for; the user's own if left out.
        #[arg(long)]
        project: Option<String>,
        /// When it ends: 30d, 12h, 45m; never if left out.
        #[arg(long)]
        expires: Option<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List all keys; the secrets are not kept.
    List {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Revoke a key, for good.
    Revoke {
        /// The key's id, as `list` shows it.
        id: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// `sqlite://path`; that of gateway.yaml if left out.
    #[arg(long, env = "SLUICE_DATABASE_URL")]
    database_url: Option<String>,
}

pub(super) fn run(command: KeysCommand) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match command {
            KeysCommand::Create {
                user,
                project,
                expires,
                store,
            } => {
                let (config, pool) = open(&store).await?;
                create(&config, &pool, &user, project.as_deref(), expires.as_deref()).await
            }
            KeysCommand::List { store } => list(&open(&store).await?.1).await,
            KeysCommand::Revoke { id, store } => revoke(&open(&store).await?.1, &id).await,
        }
    })
}

async fn open(store: &StoreArgs) -> Result<(Config, SqlitePool), Failure> {
    let config = config::load(&store.config.config)?;
    let url = store.database_url.as_deref().unwrap_or(&config.gateway.database_url);
    let pool = ledger::open(url).await?.pool;
    Ok((config, pool))
}

async fn create(
    config: &Config,
    pool: &SqlitePool,
    user: &str,
    project: Option<&str>,
    expires: Option<&str>,
) -> Result<ExitCode, Failure> {
    let user_id = config
        .user_by_id(user)
        .ok_or_else(|| Failure::usage(format!("there is no user `{user}` in users.yaml")))?;
    let own = &config.project(config.user(user_id).project).id;
    if let Some(project) = project.filter(|project| project != own) {
        return Err(Failure::usage(match config.project_by_id(project) {
            Some(_) => format!("user `{user}` belongs to project `{own}`, not to `{project}`"),
            None => format!("there is no project `{project}` in projects.yaml"),
        }));
    }
    let expires_at = expires
        .map(lifetime_ms)
        .transpose()?
        .map(|lifetime| now_ms().saturating_add(lifetime));
    let random = identity::random_text().map_err(|error| Failure::other(error.to_string()))?;
    let secret = format!("{KEY_PREFIX}{random}");
    let key = Key {
        id: format!(
            "key-{}",
            &identity::random_text().map_err(|error| Failure::other(error.to_string()))?[..12]
        ),
        number: KeyId(u32::MAX),
        hash: identity::hash(&secret),
        user_id: user.to_owned(),
        project_id: own.clone(),
        expires_at,
        revoked_at: None,
    };
    ledger::keys::insert(pool, &key, now_ms()).await?;
    eprintln!("key {} for user {user}, project {own}; it is shown only now:", key.id);
    println!("{secret}");
    Ok(ExitCode::SUCCESS)
}

async fn list(pool: &SqlitePool) -> Result<ExitCode, Failure> {
    let keys = ledger::keys::all(pool).await?;
    println!("{:<18} {:<24} {:<24} state", "id", "user", "project");
    for key in keys {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(at)) if at <= now_ms() => "expired".to_owned(),
            (None, Some(at)) => format!(
                "until {}",
                jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
            ),
            (None, None) => "active".to_owned(),
        };
        println!("{:<18} {:<24} {:<24} {state}", key.id, key.user_id, key.project_id);
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(pool: &SqlitePool, id: &str) -> Result<ExitCode, Failure> {
    if ledger::keys::revoke(pool, id, now_ms()).await? {
        println!("key {id} is revoked");
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::other(format!(
        "there is no active key `{id}`; `sluice keys list` shows them"
    )))
}

/// `30d`, `12h`, `45m` in milliseconds.
fn lifetime_ms(text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::usage(format!("--expires takes 30d, 12h or 45m, not `{text}`"));
    let unit = match text.as_bytes().last() {
        Some(b'd') => 86_400_000,
        Some(b'h') => 3_600_000,
        Some(b'm') => 60_000,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count
        .checked_mul(unit)
        .filter(|lifetime| *lifetime > 0)
        .ok_or_else(wrong)
}
