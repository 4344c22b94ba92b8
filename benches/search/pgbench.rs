//! The same statements by `pgbench -M prepared`: a script for each query vector, each with the vector search and the reading
//! of its five results.

use std::{fmt::Write, path::PathBuf, process::Command};

use doc_server::{
    config::Settings,
    index::{
        passages,
        vectors::{Model, approximate_sql},
    },
};

use crate::Failure;

/// What one search sends to the database.
pub struct Statements {
    pub model: Model,
    pub versions: Vec<i64>,
    pub generations: Vec<i64>,
    /// Each vector with the chunks it finds.
    pub searches: Vec<(Vec<f32>, Vec<i64>)>,
}

/// Transactions a second.
pub struct Pgbench {
    folder: tempfile::TempDir,
    program: PathBuf,
    url: String,
    session: String,
}

impl Pgbench {
    /// Writes the scripts.
    pub fn new(settings: &Settings, statements: &Statements) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let vector_sql = approximate_sql(statements.model);
        for (nth, (vector, chunks)) in statements.searches.iter().enumerate() {
            let search = vector_sql
                .replace("$1", &format!("'{}'::halfvec", list('[', vector, ']')))
                .replace("$2", &format!("'{}'", list('{', &statements.versions, '}')))
                .replace("$3", &format!("'{}'", list('{', &statements.generations, '}')))
                .replace("$4", "100");
            let read = passages::PASSAGES.replace("$1", &format!("'{}'::bigint[]", list('{', chunks, '}')));
            std::fs::write(folder.path().join(format!("{nth}.sql")), format!("{search};\n{read};\n"))?;
        }
        let programs = settings.postgres_dir.clone().unwrap_or_else(|| settings.data_dir.join("runtime/postgres"));
        let session = format!(
            "-c hnsw.ef_search={} -c hnsw.iterative_scan=relaxed_order -c jit=off -c plan_cache_mode=force_generic_plan",
            settings.ef_search
        );
        Ok(Self { folder, program: programs.join("bin/pgbench"), url: settings.database_url.clone(), session })
    }

    /// Runs all scripts in random order by so many clients.
    pub fn run(&self, clients: usize, seconds: u64) -> Result<f64, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["-n", "-M", "prepared", "-j", "1"]);
        command.args(["-c", &clients.to_string(), "-T", &seconds.to_string()]);
        for entry in std::fs::read_dir(self.folder.path())? {
            command.arg("-f").arg(entry?.path());
        }
        let output = command.arg(&self.url).env("PGOPTIONS", &self.session).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.ok_or_else(|| format!("pgbench: {text} {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

fn list<T: std::fmt::Display>(open: char, values: &[T], close: char) -> String {
    let mut text = String::from(open);
    for (nth, value) in values.iter().enumerate() {
        let _ = write!(text, "{}{value}", if nth == 0 { "" } else { "," });
    }
    text.push(close);
    text
}
