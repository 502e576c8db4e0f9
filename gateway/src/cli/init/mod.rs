//! `sluice init`: writes a configuration directory for given servers, people and budget. It asks the servers what they
//! serve, and never overwrites a file.

mod ask;
mod detect;
mod files;
mod litellm;
pub(super) mod size;

use super::{Failure, team};
use crate::config::{self, address::listen_address};
use crate::keys::Wanted;
use clap::Args;
use detect::{Offered, Protocol, Server};
use size::Size;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where model servers usually listen: Ollama, llama.cpp, vLLM, SGLang, LM Studio.
const USUAL: [&str; 5] = [
    "http://127.0.0.1:11434",
    "http://127.0.0.1:8080",
    "http://127.0.0.1:8000",
    "http://127.0.0.1:30000",
    "http://127.0.0.1:1234",
];

/// Prices for a budget without prices, in euros per 1,000 input and output tokens.
const ASSUMED_PRICES: (f64, f64) = (0.0001, 0.0002);

/// Seconds that a request may take, the wait in the queue included.
const REQUEST_TIMEOUT: u64 = 600;

/// What the configuration is to be for.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Directory to write; none of its files may exist yet.
    #[arg(long, env = "SLUICE_CONFIG", default_value = "config")]
    config: PathBuf,
    /// A model server's address, such as http://10.0.0.5:8000; repeat it for each. Default: those that answer on this
    /// machine.
    #[arg(long = "server", value_name = "URL")]
    servers: Vec<String>,
    /// A `config.yaml` of LiteLLM, whose models, servers, prices, limits, aliases and fallbacks are taken over.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["servers", "api_key_env"])]
    litellm: Option<PathBuf>,
    /// Environment variable that holds the servers' API key.
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Models to publish, comma-separated. Default: all that the servers offer.
    #[arg(long, value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// How many people will use the gateway, or a CSV file with a line for each (columns: user, and where wanted project,
    /// label, expires, models).
    #[arg(long, value_name = "NUMBER|FILE.csv")]
    people: Option<String>,
    /// Budget of each project in euros a month.
    #[arg(long, value_name = "EUR")]
    budget: Option<f64>,
    /// Budget of each person in euros a month.
    #[arg(long, value_name = "EUR")]
    budget_per_person: Option<f64>,
    /// Prices of 1,000 input and 1,000 output tokens in euros, such as 0.0001,0.0002.
    #[arg(long, value_name = "IN,OUT", value_parser = prices)]
    prices: Option<(f64, f64)>,
    /// Address for clients. Default: port 8000, on this machine for one person, else on all networks.
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    listen: Option<SocketAddr>,
}

/// All that the files are made of.
struct Plan {
    models: Vec<Published>,
    people: Vec<Wanted>,
    projects: Vec<String>,
    prices: (f64, f64),
    prices_are_assumed: bool,
    budget: Option<f64>,
    budget_per_person: Option<f64>,
    request_timeout: u64,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    size: Size,
}

/// A model and the servers that have it.
#[derive(Debug)]
struct Published {
    name: String,
    protocol: Protocol,
    servers: Vec<Address>,
    /// Tokens of prompt and answer together; `None`: the servers do not say.
    context: Option<u64>,
    /// Requests that all its servers run at once; `None`: at least one does not say.
    slots: Option<usize>,
    extras: Extras,
}

/// A server, and the environment variable that has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    url: String,
    key_env: Option<String>,
}

/// What a configuration that is taken over says of a model, and servers do not.
#[derive(Debug, Clone, Default, PartialEq)]
struct Extras {
    /// Its name on the servers, if that is another.
    upstream_model: Option<String>,
    /// Of 1,000 input and output tokens.
    prices: Option<(f64, f64)>,
    max_input: Option<u64>,
    max_output: Option<u64>,
    aliases: Vec<String>,
    fallbacks: Vec<String>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
}

impl Extras {
    /// Adds those of another server of the same model: its limits add up.
    fn join(&mut self, other: &Self) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.requests_per_minute = sum(self.requests_per_minute, other.requests_per_minute);
        self.tokens_per_minute = sum(self.tokens_per_minute, other.tokens_per_minute);
        self.prices = self.prices.or(other.prices);
        self.max_input = self.max_input.or(other.max_input);
        self.max_output = self.max_output.or(other.max_output);
    }
}

pub(super) fn run(args: &InitArgs) -> Result<ExitCode, Failure> {
    nothing_there(&args.config)?;
    let answers = ask::missing(args)?;
    let (models, timeout) = match &args.litellm {
        Some(file) => taken_over(file, args.models.as_deref())?,
        None => (published(&servers(args, &answers.servers)?, args)?, None),
    };
    let people = people(&answers.people)?;
    let plan = plan(args, answers.budget, models, people, timeout);
    write(&args.config, &plan)?;
    report(&args.config, args, &plan)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses to overwrite anything.
fn nothing_there(dir: &Path) -> Result<(), Failure> {
    let there = files::names().map(|name| dir.join(name)).find(|file| file.exists());
    match there {
        None => Ok(()),
        Some(file) => Err(Failure::usage(format!(
            "{} exists, and init never overwrites; name another directory with --config",
            file.display()
        ))),
    }
}

/// The models of LiteLLM's configuration, and its timeout of requests in seconds.
fn taken_over(file: &Path, wanted: Option<&[String]>) -> Result<(Vec<Published>, Option<u64>), Failure> {
    let mut read = litellm::read(file)?;
    for note in &read.notes {
        eprintln!("note: {note}");
    }
    if let Some(wanted) = wanted {
        read.models.retain(|model| wanted.contains(&model.name));
        for model in &mut read.models {
            model.extras.fallbacks.retain(|name| wanted.contains(name));
        }
    }
    if read.models.is_empty() {
        return Err(Failure::usage("none of the models of --models is in the file"));
    }
    Ok((read.models, read.request_timeout))
}

/// Asks every server what it is; without one, those at the usual addresses.
fn servers(args: &InitArgs, urls: &[String]) -> Result<Vec<Server>, Failure> {
    let key = match &args.api_key_env {
        None => None,
        Some(name) => Some(
            std::env::var(name)
                .map_err(|_| Failure::usage(format!("the environment variable {name} (--api-key-env) is not set")))?,
        ),
    };
    let asked = |url: &String| {
        eprint!("{url}: ");
        let server = detect::server(url, key.as_deref()).inspect_err(|_| eprintln!());
        let server = server.map_err(|error| Failure::other(format!("{url}: {error}")))?;
        eprintln!("{}", server.describe());
        Ok(server)
    };
    if !urls.is_empty() {
        return urls.iter().map(asked).collect();
    }
    let found: Vec<Server> = USUAL
        .iter()
        .filter_map(|url| detect::server(url, key.as_deref()).ok())
        .collect();
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "no model server answers on this machine ({}); start one, or name it with --server http://host:port",
            USUAL.map(|url| url.trim_start_matches("http://")).join(", ")
        )));
    }
    for server in &found {
        eprintln!("{}: {}", server.url, server.describe());
    }
    Ok(found)
}

/// One entry per model: servers of the same protocol that offer it share it.
fn published(servers: &[Server], args: &InitArgs) -> Result<Vec<Published>, Failure> {
    let wanted = args.models.as_deref();
    let address = |server: &Server| Address {
        url: server.url.clone(),
        key_env: args.api_key_env.clone(),
    };
    let offers: Vec<(&Server, &Offered)> = servers
        .iter()
        .flat_map(|server| server.models.iter().map(move |model| (server, model)))
        .collect();
    let mut published: Vec<Published> = Vec::new();
    for (server, offered) in &offers {
        if wanted.is_some_and(|wanted| !wanted.contains(&offered.name)) {
            continue;
        }
        match published.iter_mut().find(|model| model.name == offered.name) {
            None => published.push(Published {
                name: offered.name.clone(),
                protocol: server.protocol,
                servers: vec![address(server)],
                context: offered.context,
                slots: server.slots,
                extras: Extras::default(),
            }),
            Some(known) if known.protocol == server.protocol => {
                known.servers.push(address(server));
                known.context = known.context.min(offered.context).or(known.context).or(offered.context);
                known.slots = known.slots.zip(server.slots).map(|(one, other)| one + other);
            }
            Some(known) => eprintln!(
                "{}: {} is left out, since {} has it over another protocol",
                server.url, offered.name, known.servers[0].url
            ),
        }
    }
    for name in wanted.into_iter().flatten() {
        if !published.iter().any(|model| model.name == *name) {
            let known: BTreeSet<&str> = offers.iter().map(|(_, offered)| offered.name.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            return Err(Failure::usage(format!(
                "no server offers `{name}`; they offer {}",
                known.join(", ")
            )));
        }
    }
    if published.is_empty() {
        return Err(Failure::other("the servers offer no model; load or pull one first"));
    }
    Ok(published)
}

/// A number of people, or a CSV file that lists them.
fn people(text: &str) -> Result<Vec<Wanted>, Failure> {
    match text.parse::<usize>() {
        Ok(0) => Err(Failure::usage("--people must be at least 1")),
        Ok(count) if count > 100_000 => Err(Failure::usage("--people must be at most 100000")),
        Ok(count) => {
            let width = count.to_string().len().max(2);
            let named = (1..=count).map(|number| Wanted {
                user: format!("user_{number:0width$}"),
                ..Wanted::default()
            });
            Ok(named.collect())
        }
        Err(_)
            if Path::new(text)
                .extension()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("csv")) =>
        {
            team::read(Path::new(text), None)
        }
        Err(_) => Err(Failure::usage(format!(
            "--people `{text}` is neither a number nor a CSV file (a name that ends in .csv)"
        ))),
    }
}

fn plan(
    args: &InitArgs,
    budget: Option<f64>,
    models: Vec<Published>,
    people: Vec<Wanted>,
    timeout: Option<u64>,
) -> Plan {
    let projects: BTreeSet<String> = people.iter().map(project_of).collect();
    let users: BTreeSet<&str> = people.iter().map(|person| person.user.as_str()).collect();
    let size = Size::of(users.len(), &models);
    let has_budget = budget.is_some() || args.budget_per_person.is_some();
    let (listen, admin_listen) = listeners(args.listen, users.len(), &models);
    Plan {
        projects: projects.into_iter().collect(),
        prices: args
            .prices
            .unwrap_or(if has_budget { ASSUMED_PRICES } else { (0.0, 0.0) }),
        prices_are_assumed: has_budget && args.prices.is_none(),
        budget,
        budget_per_person: args.budget_per_person,
        request_timeout: timeout.unwrap_or(REQUEST_TIMEOUT),
        listen,
        admin_listen,
        size,
        models,
        people,
    }
}

/// The project of a person; that of those who have none is `team`.
fn project_of(person: &Wanted) -> String {
    person.project.clone().unwrap_or_else(|| "team".to_owned())
}

/// Addresses for clients and operators that no server of this machine has.
fn listeners(given: Option<SocketAddr>, people: usize, models: &[Published]) -> (SocketAddr, SocketAddr) {
    let taken = |port: u16| {
        let endings = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let mut servers = models.iter().flat_map(|model| &model.servers);
        servers.any(|server| endings.iter().any(|ending| server.url.ends_with(ending)))
    };
    let host = if people == 1 { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
    let port = [8000, 9000, 7000]
        .into_iter()
        .find(|port| !taken(*port) && !taken(port + 1))
        .unwrap_or(8000);
    let listen = given.unwrap_or_else(|| (host, port).into());
    let admin = if listen.port() == 0 {
        0
    } else {
        listen.port().saturating_add(1)
    };
    (listen, ([127, 0, 0, 1], admin).into())
}

/// Writes every file, each only if it does not exist.
fn write(dir: &Path, plan: &Plan) -> Result<(), Failure> {
    let cannot =
        |path: &Path, error: &std::io::Error| Failure::other(format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(dir).map_err(|error| cannot(dir, &error))?;
    for (name, text) in files::all(plan) {
        let path = dir.join(name);
        let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
        created
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| cannot(&path, &error))?;
    }
    Ok(())
}

/// Checks what was written, and says what to do next.
fn report(dir: &Path, args: &InitArgs, plan: &Plan) -> Result<(), Failure> {
    let config = config::load(dir, &config::Found::new())?;
    println!(
        "wrote {}: {}",
        dir.display(),
        files::names().collect::<Vec<_>>().join(", ")
    );
    print!("{}", plan.size.report());
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    if plan.prices_are_assumed {
        println!(
            "prices are assumed ({} and {} euros per 1,000 input and output tokens): correct them in {}",
            plan.prices.0,
            plan.prices.1,
            dir.join("models.yaml").display()
        );
    }
    let flag = if args.config == Path::new("config") {
        String::new()
    } else {
        format!(" --config {}", dir.display())
    };
    println!("\nnext:\n  sluice serve{flag}");
    if plan.people.len() > 1 {
        println!(
            "  sluice keys import{flag} {} > keys.csv",
            dir.join(files::TEAM).display()
        );
        println!("clients then use http://{} with the keys in keys.csv", plan.listen);
    }
    Ok(())
}

fn prices(text: &str) -> Result<(f64, f64), String> {
    let parsed = text.split_once(',').and_then(|(input, output)| {
        let price = |text: &str| {
            text.trim()
                .parse::<f64>()
                .ok()
                .filter(|price| price.is_finite() && *price >= 0.0)
        };
        Some((price(input)?, price(output)?))
    });
    parsed.ok_or_else(|| "give two prices, such as 0.0001,0.0002".to_owned())
}
