//! What other engines find in the tables: PyIceberg and DuckDB, through the scripts of `tests/python`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::binary::root;

/// What a table must hold.
#[derive(Clone, Debug)]
pub struct Check {
    /// The world's catalog, as the script wants it.
    pub catalog: Value,
    /// `namespace.name`.
    pub table: String,
    /// The branch that is read and judged; `None`: main.
    pub branch: Option<String>,
    /// Globs of the input's Parquet files.
    pub input: Vec<String>,
    /// Other tables that the query reads.
    pub others: Vec<Other>,
    /// SQL over the table `input`: the rows that must be there, each as often. `None`: no commit may be there at all.
    pub query: Option<String>,
    /// The event-time column.
    pub time: &'static str,
    /// The window, in microseconds; half-open.
    pub window: Option<(i64, i64)>,
    /// The backfill whose markers every snapshot carries; `None` where others write too.
    pub backfill: Option<String>,
    /// Files whose rows may be missing; none may where this is `None`.
    pub may_miss: Option<Vec<String>>,
}

/// Another table that a query reads: Parquet files, and the window that they are cut to, by the check's event time.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its name in the query.
    pub name: &'static str,
    /// Globs of its files.
    pub input: Vec<String>,
    /// The window, in microseconds; half-open.
    pub window: (i64, i64),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The table.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Its live data files.
    pub files: u64,
    /// Its snapshots.
    pub snapshots: u64,
    /// Files that a scan of one month does not touch.
    pub spared: u64,
    /// Whatever is wrong; nothing when the table is exactly right.
    pub problems: Vec<String>,
}

/// Judges tables, in one go: starting the engines takes longer than a small table does.
///
/// # Panics
/// When there is no Python, or the script fails.
pub fn judge(checks: &[Check]) -> Vec<Verdict> {
    let request: Vec<Value> = checks.iter().map(request).collect();
    let found = ask("check_tables.py", &Value::from(request));
    found.as_array().expect("a list").iter().map(verdict).collect()
}

/// The rows of a table as PyIceberg reads them, by column; bytes are in hexadecimal.
///
/// # Panics
/// When there is no Python, or no such table.
pub fn read_table(catalog: &Value, table: &str) -> Vec<Value> {
    let found = ask("read_table.py", &json!({"catalog": catalog, "table": table}));
    found.as_array().expect("a list").clone()
}

/// What a script of `tests/python` answers.
fn ask(script: &str, request: &Value) -> Value {
    let script = root().join("tests/python").join(script);
    let mut python = Command::new(python());
    python.arg(&script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().expect("the python of the tests starts");
    let mut stdin = child.stdin.take().expect("it has a stdin");
    // Ends early only when the script does, and then its own words say why.
    let _ = stdin.write_all(request.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script writes JSON")
}

/// Judges tables and wants no problems; gives what was found.
///
/// # Panics
/// With all problems.
pub fn must_be_exact(checks: &[Check]) -> Vec<Verdict> {
    let found = judge(checks);
    let wrong: Vec<&Verdict> = found.iter().filter(|verdict| !verdict.problems.is_empty()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    found
}

fn request(check: &Check) -> Value {
    json!({
        "catalog": check.catalog,
        "table": check.table,
        "branch": check.branch,
        "input": check.input,
        "others": check.others.iter().map(other).collect::<Vec<_>>(),
        "query": check.query,
        "time": check.time,
        "window": check.window.map(|(from, to)| [from, to]),
        "backfill": check.backfill,
        "may_miss": check.may_miss,
    })
}

fn other(other: &Other) -> Value {
    json!({"name": other.name, "input": other.input, "window": [other.window.0, other.window.1]})
}

fn verdict(found: &Value) -> Verdict {
    let number = |key: &str| found[key].as_u64().expect("a count");
    let problems = found["problems"].as_array().expect("a list").iter();
    Verdict {
        table: found["table"].as_str().expect("a name").to_owned(),
        rows: number("rows"),
        files: number("files"),
        snapshots: number("snapshots"),
        spared: number("spared"),
        problems: problems.map(|problem| problem.as_str().expect("a text").to_owned()).collect(),
    }
}

/// The interpreter that has the engines: `TIDEGATE_PYTHON`, or what `cargo xtask python` makes.
pub(super) fn python() -> &'static OsString {
    static FOUND: OnceLock<OsString> = OnceLock::new();
    FOUND.get_or_init(|| std::env::var_os("TIDEGATE_PYTHON").unwrap_or_else(|| of_xtask("python").into_os_string()))
}

/// What `cargo xtask` makes and prints the place of.
///
/// # Panics
/// When it cannot be made, with the words of what is missing.
pub(super) fn of_xtask(what: &str) -> PathBuf {
    let xtask = ["run", "--quiet", "--package", "xtask", "--", what];
    let output = Command::new(env!("CARGO")).args(xtask).current_dir(root()).output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the tests need `cargo xtask {what}`:\n{said}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default())
}
