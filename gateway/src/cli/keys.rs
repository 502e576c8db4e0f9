//! `sluice keys`: make, list, rotate and revoke API keys in the gateway's database. A running gateway takes a
//! change over within a second.

use super::{Failure, StoreArgs};
use crate::config::{self, Config};
use crate::keys::{self, Wanted};
use clap::Subcommand;
use ledger::Store;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Create an API key and print its secret, once.
    Create {
        /// Owner of the key.
        #[arg(long)]
        user: String,
        /// Project that is billed. Default: the user's project.
        #[arg(long)]
        project: Option<String>,
        /// Lifetime, such as 30d, 12h or 45m. Default: unlimited.
        #[arg(long)]
        expires: Option<String>,
        /// Models that the key may use, comma-separated. Default: all.
        #[arg(long, value_delimiter = ',')]
        models: Option<Vec<String>>,
        /// Print the secret and its metadata as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List all API keys, without their secrets (only hashes are stored).
    List {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Replace an API key: create a new one for the same owner and let the old one expire.
    Rotate {
        /// Id of the key, as printed by `sluice keys list`.
        id: String,
        /// Time that the old key stays valid. Default: 1h.
        #[arg(long)]
        grace: Option<String>,
        /// Print the secret and its metadata as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Revoke an API key permanently.
    Revoke {
        /// Id of the key, as printed by `sluice keys list`.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

pub(super) fn run(command: KeysCommand) -> Result<ExitCode, Failure> {
    super::block_on(async {
        match command {
            KeysCommand::Create {
                user,
                project,
                expires,
                models,
                json,
                store,
            } => {
                let (config, store) = open(&store).await?;
                let wanted = Wanted {
                    user: &user,
                    project: project.as_deref(),
                    expires: expires.as_deref(),
                    models,
                };
                print_secret(keys::make(&config, &store, wanted).await?, json);
            }
            KeysCommand::List { json, store } => print_list(&keys::list(&open(&store).await?.1).await?, json),
            KeysCommand::Rotate { id, grace, json, store } => {
                print_secret(keys::rotate(&open(&store).await?.1, &id, grace.as_deref()).await?, json);
            }
            KeysCommand::Revoke { id, json, store } => {
                keys::revoke(&open(&store).await?.1, &id).await?;
                if json {
                    println!("{}", json!({"id": id, "state": "revoked"}));
                } else {
                    println!("key {id} revoked");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn open(args: &StoreArgs) -> Result<(Config, Store), Failure> {
    let config = config::load(&args.config.config, &config::Found::new())?;
    let store = ledger::connect(&args.url(&config)).await?;
    Ok((config, store))
}

/// The secret alone goes to standard output, so that a script can take it.
fn print_secret((secret, mut key): (String, Value), as_json: bool) {
    if as_json {
        key["secret"] = secret.into();
        println!("{key}");
        return;
    }
    let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
    eprintln!(
        "created key {} for user {}, project {}; the secret is shown only once:",
        text("id"),
        text("user_id"),
        text("project_id")
    );
    println!("{secret}");
}

fn print_list(keys: &[Value], as_json: bool) {
    if as_json {
        println!("{}", Value::from(keys.to_vec()));
        return;
    }
    println!(
        "{:<18} {:<24} {:<24} {:<8} {:<21} {:<21} models",
        "id", "user", "project", "state", "expires", "last used"
    );
    for key in keys {
        let text = |name: &str| key[name].as_str().unwrap_or("–").chars().take(20).collect::<String>();
        let models = key["models"].as_array().map_or_else(
            || "all".to_owned(),
            |models| models.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        );
        println!(
            "{:<18} {:<24} {:<24} {:<8} {:<21} {:<21} {models}",
            text("id"),
            text("user_id"),
            text("project_id"),
            text("state"),
            text("expires_at"),
            text("last_used_at")
        );
    }
}

impl From<keys::Error> for Failure {
    fn from(error: keys::Error) -> Self {
        match error {
            keys::Error::Wrong(message) => Failure::usage(message),
            keys::Error::Unknown(message) | keys::Error::Failed(message) => Failure::other(message),
        }
    }
}
