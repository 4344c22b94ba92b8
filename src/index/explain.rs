//! What the database does for a search: each statement's plan, as it was carried out.
//!
//! [`Index::explaining`] gives a handle like any other, through which every reading statement is explained on the connection,
//! with the session's settings and inside the transaction it is about to run with, and then runs for its rows. So
//! what is shown are the statements of the search, not copies of them, and their generic plans: parameters stay parameters.
//! A statement thus runs twice, the explained time includes the cost of measuring, and one that fails to be explained fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use serde_json::Value;
use sqlx::{
    Arguments, AssertSqlSafe, Execute, PgConnection, Postgres, Row, SqlStr,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{Error, Index};

/// Session settings that decide how a search's statements are planned and carried out.
const SETTINGS: [&str; 9] = [
    "plan_cache_mode",
    "hnsw.ef_search",
    "hnsw.iterative_scan",
    "ivfflat.probes",
    "ivfflat.iterative_scan",
    "synchronize_seqscans",
    "jit",
    "work_mem",
    "statement_timeout",
];

/// A statement and how the database carried it out.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Its leg or stage and its work there, such as `vector.approximate`.
    pub name: &'static str,
    /// The text, with `$1`, `$2`, … for its values.
    pub sql: String,
    /// Indexes that were read, outermost first, each once.
    pub indexes: Vec<IndexUse>,
    /// Tables that were read from end to end, each once.
    pub whole_tables: Vec<String>,
    /// Rows it returned.
    pub rows: f64,
    /// Pages of 8 kB it touched.
    pub buffers: Buffers,
    /// Choosing the plan, in milliseconds: next to nothing once the session has it.
    pub planning_ms: f64,
    /// Carrying it out, measuring included, in milliseconds.
    pub execution_ms: f64,
    /// What the session had set while it ran.
    pub settings: BTreeMap<&'static str, String>,
    /// Postgres' tree: `explain (analyze, buffers, settings, format json)`.
    pub plan: Value,
}

/// An index that a plan reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexUse {
    /// Its name.
    pub name: String,
    /// `hnsw`, `ivfflat`, `gin` or `btree`.
    pub method: String,
}

/// Pages of 8 kB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Buffers {
    /// Found in Postgres' memory.
    pub hit: u64,
    /// Fetched from the system.
    pub read: u64,
}

/// Collects what one handle explains.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Explained>>>);

impl Recorder {
    /// What was explained since the last call, in the order in which it was.
    #[must_use]
    pub fn take(&self) -> Vec<Explained> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, explained: Explained) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(explained);
    }
}

impl Index {
    /// A handle on the same connections whose reading statements are explained before they run, and where to find that.
    #[must_use]
    pub fn explaining(&self) -> (Self, Recorder) {
        let recorder = Recorder::default();
        (Self { recorder: Some(recorder.clone()), ..self.clone() }, recorder)
    }

    /// The rows of a reading statement, explained first where this handle does so.
    pub(super) async fn rows(
        &self,
        name: &'static str,
        query: Query<'_, Postgres, PgArguments>,
        connection: &mut PgConnection,
    ) -> Result<Vec<PgRow>, Error> {
        match &self.recorder {
            None => Ok(query.fetch_all(connection).await?),
            // Rare, and its state is large, which every search would carry.
            Some(recorder) => Ok(Box::pin(recorder.explain_and_run(name, query, connection)).await?),
        }
    }
}

impl Recorder {
    async fn explain_and_run(
        &self,
        name: &'static str,
        mut query: Query<'_, Postgres, PgArguments>,
        connection: &mut PgConnection,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
        let persistent = Execute::persistent(&query);
        let sql = query.sql();
        self.add(explain(name, &sql, arguments.clone(), connection).await?);
        sqlx::query_with(sql, arguments).persistent(persistent).fetch_all(connection).await
    }
}

/// Explains the statement with these values as a prepared one, the only kind whose plan is that of the search's.
async fn explain(
    name: &'static str,
    sql: &SqlStr,
    arguments: PgArguments,
    connection: &mut PgConnection,
) -> Result<Explained, sqlx::Error> {
    /// A statement that failed halfway leaves its name behind in the session.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prepared = format!("doc_server_explained_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let values = Values::read(arguments, connection).await?;
    // One request, so that a proxy that shares server sessions cannot send its parts to different ones.
    let script = format!(
        "prepare {prepared}{} as {};
         explain (analyze, buffers, settings, format json) execute {prepared}{};
         deallocate {prepared}",
        in_parentheses(&values.types),
        sql.as_str(),
        in_parentheses(&values.literals)
    );
    // Safe: the statement is one of ours, and the database itself quoted the values.
    let rows = sqlx::raw_sql(AssertSqlSafe(script)).fetch_all(&mut *connection).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut root: Value = row.try_get(0)?;
    let root = root.get_mut(0).map(Value::take).unwrap_or_default();
    let mut tree = Tree::default();
    tree.walk(&root["Plan"]);
    let number = |name: &str| root[name].as_f64().unwrap_or_default();
    let pages = |name: &str| root["Plan"][name].as_u64().unwrap_or_default();
    Ok(Explained {
        name,
        sql: sql.as_str().to_owned(),
        indexes: methods(&tree.indexes, connection).await?,
        whole_tables: tree.whole_tables,
        rows: root["Plan"]["Actual Rows"].as_f64().unwrap_or_default(),
        buffers: Buffers { hit: pages("Shared Hit Blocks"), read: pages("Shared Read Blocks") },
        planning_ms: number("Planning Time"),
        execution_ms: number("Execution Time"),
        settings: values.settings,
        plan: root,
    })
}

/// A statement's values as SQL, and what the session has set.
struct Values {
    types: Vec<String>,
    literals: Vec<String>,
    settings: BTreeMap<&'static str, String>,
}

impl Values {
    /// The database knows best how its values are written.
    async fn read(arguments: PgArguments, connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let count = arguments.len();
        let columns = (1..=count).map(|nth| format!("pg_typeof(${nth})::text, quote_nullable(${nth}::text)"));
        let settings = SETTINGS.iter().map(|name| format!("current_setting('{name}', true)"));
        let sql = format!("select {}", columns.chain(settings).collect::<Vec<_>>().join(", "));
        // Safe: numbers and names of ours.
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(false);
        let row = query.fetch_one(connection).await?;
        let column = |nth: usize| row.try_get::<String, _>(nth);
        let mut values = Self { types: Vec::new(), literals: Vec::new(), settings: BTreeMap::new() };
        for nth in 0..count {
            values.types.push(column(2 * nth)?);
            values.literals.push(column(2 * nth + 1)?);
        }
        for (nth, name) in (2 * count..).zip(SETTINGS) {
            if let Some(value) = row.try_get::<Option<String>, _>(nth)? {
                values.settings.insert(name, value);
            }
        }
        Ok(values)
    }
}

fn in_parentheses(parts: &[String]) -> String {
    if parts.is_empty() { String::new() } else { format!("({})", parts.join(", ")) }
}

/// What a plan reads.
#[derive(Default)]
struct Tree {
    indexes: Vec<String>,
    whole_tables: Vec<String>,
}

impl Tree {
    fn walk(&mut self, node: &Value) {
        let add = |to: &mut Vec<String>, name: &str| {
            if !to.iter().any(|known| known == name) {
                to.push(name.to_owned());
            }
        };
        if let Some(name) = node["Index Name"].as_str() {
            add(&mut self.indexes, name);
        }
        if let (Some("Seq Scan"), Some(name)) = (node["Node Type"].as_str(), node["Relation Name"].as_str()) {
            add(&mut self.whole_tables, name);
        }
        for child in node["Plans"].as_array().into_iter().flatten() {
            self.walk(child);
        }
    }
}

/// The same indexes with their methods.
async fn methods(indexes: &[String], connection: &mut PgConnection) -> Result<Vec<IndexUse>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, m.amname::text from pg_class c join pg_am m on m.oid = c.relam
         where c.relkind = 'i' and c.relname = any($1)",
    )
    .bind(indexes)
    .fetch_all(connection)
    .await?;
    let methods: BTreeMap<String, String> = rows.into_iter().collect();
    let named = |name: &String| IndexUse { name: name.clone(), method: methods.get(name).cloned().unwrap_or_default() };
    Ok(indexes.iter().map(named).collect())
}
