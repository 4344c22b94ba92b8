//! The command line: roles of the one binary and their flags.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    index::{keys::Scope, sources::is_address},
    query::Mode,
    rank::Fusion,
    runtime::telemetry::LogFormat,
};

/// Search documentation by meaning and by words, fused inside Postgres.
#[derive(Debug, Parser)]
#[command(name = "doc-server", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Settings for all roles.
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// Flags that override settings; every other setting is read from the file and the environment.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingFlags {
    /// Settings file (TOML)
    #[arg(long, global = true, env = "DOC_SERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the embedded database, the model and the libraries
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Postgres to use instead of the embedded one
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help = "Postgres to use instead of the embedded one: postgres://user:password@host/database"
    )]
    pub database_url: Option<String>,
    /// error, warn, info, debug, trace, or target=level pairs
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
}

/// The roles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the search API, with an embedded Postgres unless a database is configured
    Serve(ServeFlags),
    /// Bring the database's schema up to date
    Migrate,
    /// Import a folder or file of Markdown, MDX, HTML or plain text
    Ingest(IngestFlags),
    /// Search from the terminal
    Search(SearchFlags),
    /// Show how the database carries a search out: statements, plans, indexes, rows, pages read, times
    Explain(SearchFlags),
    /// Rebuild the vector index beside the one in use, and swap
    Index(IndexFlags),
    /// List and delete what was imported
    #[command(subcommand)]
    Sources(SourcesCommand),
    /// Make, list and revoke the keys of callers
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Measure relevance on labelled search sets (BEIR layout: corpus.jsonl, queries.jsonl, qrels/test.tsv)
    Eval(EvalFlags),
    /// Print the API's description (OpenAPI 3.1)
    Openapi,
    /// Ask a running server how it is; exits 0 when it can answer searches
    Healthcheck,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeFlags {
    /// Where the API listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub bind: Option<SocketAddr>,
    /// Where metrics and probes listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_bind: Option<SocketAddr>,
    /// Refuse to start on a schema that is not up to date, instead of migrating it
    #[arg(long)]
    pub no_migrate: bool,
    /// Let callers without a key do everything, on any address
    #[arg(long)]
    pub insecure_open: bool,
}

/// What to do with sources.
#[derive(Debug, Subcommand)]
pub enum SourcesCommand {
    /// List the sources with their versions
    List {
        /// Print JSON: an array of what the API tells of each
        #[arg(long)]
        json: bool,
    },
    /// Delete a source with all its versions: gone from search at once
    Delete {
        /// The source, as the list tells it
        #[arg(value_name = "ID")]
        source_id: String,
    },
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print its secret, once
    Create(CreateKeyFlags),
    /// List the keys, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key worth nothing on every replica
    Revoke {
        /// The key's id, as the list tells it
        key_id: i64,
    },
}

/// Flags of `keys create`.
#[derive(Debug, Args)]
pub struct CreateKeyFlags {
    /// Name for people, such as the program that will use it
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What its bearer may do; may be repeated
    #[arg(
        long,
        value_name = "SCOPE",
        required = true,
        help = "What its bearer may do: search, sources:write, jobs:write, config:write, or admin for everything; \
                may be repeated"
    )]
    pub scope: Vec<Scope>,
    /// Only this source; may be repeated, * stands for any characters
    #[arg(long, value_name = "ID")]
    pub source: Vec<String>,
    /// Worth nothing after so many days; never ends when absent
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub expires_in_days: Option<u32>,
    /// A limit of its own; that of each route when absent
    #[arg(long, value_name = "COUNT")]
    pub requests_per_minute: Option<u32>,
}

/// Flags of `ingest`.
#[derive(Debug, Args)]
pub struct IngestFlags {
    /// A folder or a file. What it holds is the whole version: pages that are no longer there go
    pub path: PathBuf,
    /// Name of the source, such as tokio
    #[arg(long, value_name = "ID", value_parser = source_id)]
    pub source: String,
    /// Version of the documents, such as 1.52.0
    #[arg(long, value_name = "VERSION", default_value = "unversioned", value_parser = version)]
    pub version: String,
    /// Address that the paths below the folder are put after
    #[arg(
        long,
        value_name = "URL",
        value_parser = address,
        help = "Address that the paths below the folder are put after, such as https://docs.example.org; \
                absent, the one of the import before"
    )]
    pub url: Option<String>,
    /// Name for people; the source's id when absent
    #[arg(long, value_name = "TITLE")]
    pub title: Option<String>,
}

/// Flags of `search` and `explain`.
#[derive(Debug, Args)]
pub struct SearchFlags {
    /// What to look for
    pub query: String,
    /// How many results
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub match_count: u16,
    /// Only in this source; may be repeated, * stands for any characters
    #[arg(long, value_name = "ID")]
    pub source: Vec<String>,
    /// latest, a range such as 5.x, or an exact version
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Where candidates come from
    #[arg(long, value_enum, default_value_t = Mode::Hybrid)]
    pub mode: Mode,
    /// Weight of vectors, 0 to 1
    #[arg(long, value_name = "WEIGHT")]
    pub alpha: Option<f32>,
    /// How the two legs are made one list
    #[arg(long, value_enum, default_value_t = Fusion::Weighted)]
    pub fusion: Fusion,
    /// Compare with every vector instead of walking the index
    #[arg(long)]
    pub exact: bool,
    /// Tell each leg's rank and score
    #[arg(long)]
    pub explain: bool,
    /// Print the API's JSON
    #[arg(long)]
    pub json: bool,
}

/// The kinds of vector index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IndexKind {
    /// A graph: best recall for its time
    Hnsw,
    /// Lists around centroids: smaller and quicker to build
    Ivfflat,
}

/// Flags of `index`.
#[derive(Debug, Args)]
pub struct IndexFlags {
    /// Which index
    #[arg(long, value_enum)]
    pub kind: IndexKind,
    /// HNSW: links of a node
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=100))]
    pub m: u16,
    /// HNSW: candidates while building
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=1000))]
    pub ef_construction: u16,
    /// IVFFlat: lists; rows / 1000 when absent
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub lists: Option<u32>,
}

/// Flags of `eval`.
#[derive(Debug, Args)]
pub struct EvalFlags {
    /// One or more folders, each with corpus.jsonl, queries.jsonl and qrels/test.tsv
    #[arg(required = true)]
    pub sets: Vec<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Weight of vectors, 0 to 1
    #[arg(long, value_name = "WEIGHT")]
    pub alpha: Option<f32>,
    /// How the two legs are made one list
    #[arg(long, value_enum, default_value_t = Fusion::Weighted)]
    pub fusion: Fusion,
}

fn source_id(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@/-".contains(c);
    if text.len() <= 128 && text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 128 letters, digits and . _ @ / -, beginning with a letter or digit".to_owned())
}

fn address(text: &str) -> Result<String, String> {
    if text.is_empty() || is_address(text) {
        return Ok(text.to_owned());
    }
    Err("is no address; use one such as https://docs.example.org".to_owned())
}

fn version(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == '*') && text != "latest" {
        return Ok(text.to_owned());
    }
    Err("use 1 to 128 characters without * and other than \"latest\", which stands for the newest".to_owned())
}

impl SettingFlags {
    /// The given flags as settings.
    #[must_use]
    pub fn overrides(&self, command: &Command) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut overrides = vec![
            ("data_dir", self.data_dir.as_ref().map(path)),
            ("database_url", self.database_url.clone()),
            ("log_level", self.log_level.clone()),
            ("log_format", self.log_format.and_then(|format| Some(format.to_possible_value()?.get_name().to_owned()))),
        ];
        if let Command::Serve(flags) = command {
            overrides.push(("bind", flags.bind.map(|address| address.to_string())));
            overrides.push(("admin_bind", flags.admin_bind.map(|address| address.to_string())));
            overrides.push(("insecure_open", flags.insecure_open.then(|| "true".to_owned())));
        }
        overrides.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}
