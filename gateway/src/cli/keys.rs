//! `sluice keys`: make, import, list, rotate and revoke API keys; through the gateway that runs, else in its database.

use super::client::{Admin, AdminArgs};
use super::table::aligned;
use super::{Failure, team};
use crate::config::{self, Config};
use crate::keys::{self, Wanted};
use clap::{Args, Subcommand};
use ledger::Store;
use serde_json::{Value, json};
use std::path::PathBuf;
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
        /// Lifetime, such as 12h, 30d, 2w or 1y, or last day (UTC), such as 2026-12-31. Default: unlimited.
        #[arg(long)]
        expires: Option<String>,
        /// Models that the key may use, comma-separated. Default: all.
        #[arg(long, value_delimiter = ',')]
        models: Option<Vec<String>>,
        /// What the key is for, such as `laptop`.
        #[arg(long)]
        label: Option<String>,
        #[command(flatten)]
        at: KeysArgs,
    },
    /// Create a key for each line of a CSV file, and print them as CSV: user, key id, label, expiry, secret.
    ///
    /// The file's first line names its columns: `user`, and where wanted `project`, `label`, `expires` and `models`
    /// (separated by spaces). All keys are created, or none. Users who have an active key with the same label are left
    /// out, so a list that has grown can be imported again.
    Import {
        /// CSV file.
        file: PathBuf,
        /// Lifetime of keys whose line has none.
        #[arg(long)]
        expires: Option<String>,
        #[command(flatten)]
        at: KeysArgs,
    },
    /// List all API keys, without their secrets (only hashes are stored).
    List {
        #[command(flatten)]
        at: KeysArgs,
    },
    /// Give an API key a new secret. Its id, owner, limits, budget and label stay.
    Rotate {
        /// Id of the key, as printed by `sluice keys list`.
        id: String,
        /// How long the old secret stays valid; 0s for one that has leaked. Default: 1h.
        #[arg(long)]
        grace: Option<String>,
        #[command(flatten)]
        at: KeysArgs,
    },
    /// Revoke an API key permanently.
    Revoke {
        /// Id of the key, as printed by `sluice keys list`.
        id: String,
        #[command(flatten)]
        at: KeysArgs,
    },
}

/// Where the keys are.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Use this database (`sqlite://path` or `postgres://…`), and no running gateway.
    #[arg(long)]
    database_url: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn run(command: KeysCommand) -> Result<ExitCode, Failure> {
    match command {
        KeysCommand::Create {
            user,
            project,
            expires,
            models,
            label,
            at,
        } => {
            let wanted = Wanted {
                user,
                project,
                expires,
                models,
                label,
            };
            let keys = Keys::find(&at)?;
            print_secret("created", &keys.make(&wanted)?, &keys, at.json);
        }
        KeysCommand::Import { file, expires, at } => {
            let wanted = team::read(&file, expires.as_deref())?;
            let keys = Keys::find(&at)?;
            print_import(&keys.import(&wanted)?, &keys, at.json);
        }
        KeysCommand::List { at } => print_list(&Keys::find(&at)?.list()?, at.json),
        KeysCommand::Rotate { id, grace, at } => {
            let keys = Keys::find(&at)?;
            print_secret("rotated", &keys.rotate(&id, grace.as_deref())?, &keys, at.json);
        }
        KeysCommand::Revoke { id, at } => {
            let keys = Keys::find(&at)?;
            keys.revoke(&id)?;
            if at.json {
                println!("{}", json!({"id": id, "state": "revoked"}));
            } else {
                println!("revoked key {id} {}", keys.place());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys of a running gateway, or of a database.
enum Keys {
    Gateway(Admin),
    Database(Box<Config>, String),
}

impl Keys {
    /// The gateway that is named, or that runs with the data directory; else the database.
    fn find(args: &KeysArgs) -> Result<Self, Failure> {
        if args.database_url.is_none() {
            if args.admin.given_url().is_some() {
                return Admin::find(&args.admin).map(Self::Gateway);
            }
            if let Some(gateway) = args.admin.running() {
                return Ok(Self::Gateway(gateway));
            }
        }
        let config = config::load(&args.admin.config.config, &config::Found::new())?;
        let from_environment = || std::env::var("SLUICE_DATABASE_URL").ok();
        let url = args.database_url.clone().or_else(from_environment);
        let url = url.unwrap_or_else(|| config.gateway.startup.database_url.clone());
        Ok(Self::Database(Box::new(config), url))
    }

    /// Where a change was made, for messages.
    fn place(&self) -> String {
        match self {
            Self::Gateway(admin) => format!("on the gateway at {}", admin.url),
            Self::Database(_, url) => format!("in the {}", ledger::describe(url)),
        }
    }

    fn make(&self, wanted: &Wanted) -> Result<Value, Failure> {
        match self {
            Self::Gateway(admin) => post(admin, "/keys", &json!(wanted)),
            Self::Database(config, url) => on(url, async |store| keys::make(config, &store, wanted).await),
        }
    }

    fn import(&self, wanted: &[Wanted]) -> Result<Value, Failure> {
        match self {
            Self::Gateway(admin) => post(admin, "/keys/import", &json!({"keys": wanted})),
            Self::Database(config, url) => on(url, async |store| keys::import(config, &store, wanted).await),
        }
    }

    fn list(&self) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Gateway(admin) => {
                let listed = admin.get("/keys")?;
                Ok(listed["keys"].as_array().cloned().unwrap_or_default())
            }
            Self::Database(_, url) => on(url, async |store| Ok(keys::list(&store).await?)),
        }
    }

    fn rotate(&self, id: &str, grace: Option<&str>) -> Result<Value, Failure> {
        match self {
            Self::Gateway(admin) => post(admin, &format!("/keys/{id}/rotate"), &json!({"grace": grace})),
            Self::Database(_, url) => on(url, async |store| keys::rotate(&store, id, grace).await),
        }
    }

    fn revoke(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::Gateway(admin) => {
                let request = admin.http.delete(format!("{}/keys/{id}", admin.url));
                admin.ask(request).map(drop)
            }
            Self::Database(_, url) => on(url, async |store| keys::revoke(&store, id).await),
        }
    }
}

fn post(admin: &Admin, path: &str, body: &Value) -> Result<Value, Failure> {
    admin.ask(admin.http.post(format!("{}{path}", admin.url)).json(body))
}

/// Does something in a database that exists.
fn on<T>(url: &str, work: impl AsyncFnOnce(Store) -> Result<T, keys::Error>) -> Result<T, Failure> {
    super::block_on(async { Ok(work(ledger::connect(url).await?).await?) })
}

/// The secret alone goes to standard output, so that a script can take it.
fn print_secret(done: &str, key: &Value, keys: &Keys, as_json: bool) {
    if as_json {
        println!("{key}");
        return;
    }
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    eprintln!(
        "{done} key {} of user {}, project {}, {}",
        text("id"),
        text("user_id"),
        text("project_id"),
        keys.place()
    );
    if let Some(until) = key["old_secret_until"].as_str() {
        eprintln!("the old secret is valid until {until}");
    }
    if matches!(keys, Keys::Database(..)) {
        eprintln!("a gateway that runs with this database accepts it within a second");
    }
    eprintln!("the secret is shown only once:");
    println!("{}", text("secret"));
}

const COLUMNS_OF_IMPORT: [&str; 5] = ["user_id", "id", "label", "expires_at", "secret"];
const COLUMNS_OF_LIST: [&str; 8] = [
    "id",
    "label",
    "user",
    "project",
    "state",
    "expires",
    "last used",
    "models",
];

/// The new keys as CSV on standard output; the others are counted.
fn print_import(done: &Value, keys: &Keys, as_json: bool) {
    if as_json {
        println!("{done}");
        return;
    }
    let list = |name: &str| done[name].as_array().cloned().unwrap_or_default();
    let (created, existing) = (list("created"), list("existing"));
    print!("{}", crate::csv::line(COLUMNS_OF_IMPORT.map(Value::from)));
    for key in &created {
        print!(
            "{}",
            crate::csv::line(COLUMNS_OF_IMPORT.map(|column| key[column].clone()))
        );
    }
    eprintln!(
        "created {} keys {}; the secrets are shown only once",
        created.len(),
        keys.place()
    );
    for key in &existing {
        eprintln!(
            "user {} has key {} already",
            key["user_id"].as_str().unwrap_or_default(),
            key["id"].as_str().unwrap_or_default()
        );
    }
}

fn print_list(keys: &[Value], as_json: bool) {
    if as_json {
        println!("{}", Value::from(keys.to_vec()));
        return;
    }
    let mut rows = vec![COLUMNS_OF_LIST.map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(row));
    print!("{}", aligned(&rows, COLUMNS_OF_LIST.len()));
}

fn row(key: &Value) -> Vec<String> {
    let text = |name: &str| key[name].as_str().unwrap_or("–").to_owned();
    let time = |name: &str| {
        let at = key[name].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        at.map_or("–".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
    };
    let models = key["models"].as_array().map_or_else(
        || "all".to_owned(),
        |models| models.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
    );
    vec![
        text("id"),
        text("label"),
        text("user_id"),
        text("project_id"),
        text("state"),
        time("expires_at"),
        time("last_used_at"),
        models,
    ]
}

impl From<keys::Error> for Failure {
    fn from(error: keys::Error) -> Self {
        match error {
            keys::Error::Wrong(message) => Failure::usage(message),
            keys::Error::Unknown(message) | keys::Error::Failed(message) => Failure::other(message),
        }
    }
}
