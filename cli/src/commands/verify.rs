//! `verify`: whether what a backfill's journal says is what its tables hold.
//!
//! The journal comes from the coordinator, or from the state folder of a coordinator that does not run; the tables are
//! read here, through the catalogs of the configuration.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tidegate_coordinator::driver;
use tidegate_coordinator::store::blobs::Blobs;
use tidegate_coordinator::store::redb::{FILE_NAME, RedbStore};
use tidegate_proto::v1;
use tidegate_worker::sink::Catalogs;
use tidegate_worker::verify::{Account, BadJournal, Check, Verdict, check_account, check_table, read_table};

use super::table::{sink_error, target};
use super::{Context, worker};
use crate::args;
use crate::client::Client;
use crate::config::DEFAULT_CATALOG;
use crate::exit::{Error, Exit, Outcome};
use crate::output::{self, Document, Format};
use crate::report::short_id;
use crate::style::{Paint, plain};
use crate::view::List;

/// Details of a check that nothing is wrong with.
const FEW: usize = 3;

/// One backfill, verified; `kind: Verification`.
#[derive(Serialize)]
struct Verification {
    id: String,
    name: String,
    phase: String,
    /// Whether nothing is broken.
    matches: bool,
    checks: Vec<CheckDocument>,
}

#[derive(Serialize)]
struct CheckDocument {
    check: &'static str,
    /// The source or the table.
    of: String,
    /// holds, untold or broken.
    verdict: &'static str,
    text: String,
    details: Vec<String>,
}

/// A backfill's account with its checks.
struct Verified {
    account: Account,
    checks: Vec<Check>,
}

/// Verifies.
pub(super) async fn verify(args: args::Verify, context: &Context) -> Outcome {
    let mut progress = context.progress("reading the journal, the manifests and the files");
    let verified = verified(&args, context).await;
    progress.end();
    let verified = verified?;
    let text = match context.format() {
        Format::Table | Format::Wide => {
            let wide = context.format() == Format::Wide;
            verified.iter().map(|one| text(one, context.paint, wide)).collect::<Vec<_>>().join("\n")
        }
        Format::Name => verified.iter().map(|one| format!("{}\n", one.account.id)).collect(),
        Format::Jsonl => {
            let lines = verified.iter().map(|one| Document::new("Verification", &document(one)).text(Format::Jsonl));
            lines.collect::<Result<String, Error>>()?
        }
        format => {
            let items = verified.iter().map(document).collect();
            Document::new("VerificationList", &List { items }).text(format)?
        }
    };
    output::print(&text)?;
    Ok(if verified.iter().all(matches) { Exit::Done } else { Exit::Mismatch })
}

/// The journal of the one backfill that `of` means, added up.
pub(super) async fn account(state: Option<&Path>, of: &str, context: &Context) -> Result<Account, Error> {
    let accounts = match state {
        Some(state) => of_state(state, of, None).await?,
        None => of_coordinator(&context.client().await?, of, None).await?,
    };
    accounts.into_iter().next().ok_or_else(|| {
        Error::new(Exit::Failed, format!("there is no backfill {of:?}"))
            .hint("`tidegate list` shows those of a coordinator; `--state DIR` reads those of a local run")
    })
}

fn matches(one: &Verified) -> bool {
    one.checks.iter().all(|check| check.verdict != Verdict::Broken)
}

async fn verified(args: &args::Verify, context: &Context) -> Result<Vec<Verified>, Error> {
    // A table's name has a point in it, and no backfill's has.
    let table = if args.of.contains('.') { Some(target(&args.of)?.full_name()) } else { None };
    let accounts = match &args.state {
        Some(state) => of_state(state, &args.of, table.as_deref()).await?,
        None => of_coordinator(&context.client().await?, &args.of, table.as_deref()).await?,
    };
    if accounts.is_empty() {
        return Err(Error::new(Exit::Failed, format!("there is no backfill {:?} to verify", args.of))
            .hint("`tidegate list` shows those of a coordinator; `--state DIR` reads those of a local run"));
    }
    let catalogs = Catalogs::to_read(worker::catalogs(&context.config));
    let mut verified = Vec::with_capacity(accounts.len());
    for account in accounts {
        verified.push(one(account, &catalogs, table.as_deref()).await?);
    }
    Ok(verified)
}

async fn one(account: Account, catalogs: &Catalogs, only: Option<&str>) -> Result<Verified, Error> {
    let mut checks = check_account(&account);
    for (at, output) in account.outputs.iter().enumerate() {
        let target = account.target(at, DEFAULT_CATALOG).map_err(bad_journal)?;
        let asked_for = only.is_none_or(|only| only == target.full_name());
        if asked_for && output.is_touched() {
            let facts = read_table(catalogs, &target, &account, output).await.map_err(|bad| sink_error(&bad))?;
            checks.extend(check_table(&account, output, &facts));
        }
    }
    Ok(Verified { account, checks })
}

fn bad_journal(bad: BadJournal) -> Error {
    Error::new(Exit::Failed, bad.to_string()).hint("is this the release that wrote it?")
}

fn writes_to(account: &Account, table: &str) -> bool {
    (0..account.outputs.len())
        .any(|at| account.target(at, DEFAULT_CATALOG).is_ok_and(|target| target.full_name() == table))
}

async fn of_state(folder: &Path, of: &str, table: Option<&str>) -> Result<Vec<Account>, Error> {
    if !folder.join(FILE_NAME).exists() {
        return Err(Error::usage(format!("{} is no state folder: there is no {FILE_NAME} in it", folder.display())));
    }
    let failed = |what: &str| Error::new(Exit::Failed, format!("{what} in {}", folder.display()));
    let meta = RedbStore::open(folder).await.map_err(|bad| {
        let exit = if bad.is_retryable() { Exit::Temporary } else { Exit::Failed };
        let hint = "where a coordinator has it open, leave --state out and ask the coordinator";
        Error::new(exit, format!("the state in {} cannot be opened", folder.display())).because(bad).hint(hint)
    })?;
    let journals = driver::read_journals(Arc::new(meta), Blobs::local(folder.join("blobs"))).await;
    let mut accounts = Vec::new();
    for (id, records) in journals.map_err(|bad| failed("a journal cannot be read").because(bad))? {
        let mut account = Account::new(id.as_str());
        records.into_iter().try_for_each(|record| account.book(record)).map_err(bad_journal)?;
        accounts.push(account);
    }
    match table {
        Some(table) => accounts.retain(|account| writes_to(account, table)),
        None => accounts = named(accounts, of)?,
    }
    Ok(accounts)
}

/// The one that `name` means: an id, a name, or the beginning of one id only.
fn named(accounts: Vec<Account>, name: &str) -> Result<Vec<Account>, Error> {
    let is_named = |account: &Account| account.spec.as_ref().is_some_and(|spec| spec.spec.name == name);
    let exact = |account: &Account| account.id == name || is_named(account);
    let (mut exactly, others): (Vec<_>, Vec<_>) = accounts.into_iter().partition(exact);
    if exactly.is_empty() {
        exactly.extend(others.into_iter().filter(|account| name.len() >= 4 && account.id.starts_with(name)));
    }
    if exactly.len() > 1 {
        let ids: Vec<String> = exactly.into_iter().map(|account| account.id).collect();
        return Err(Error::usage(format!("{name} means more than one backfill"))
            .hint(format!("name one of {}", ids.join(", "))));
    }
    Ok(exactly)
}

async fn of_coordinator(client: &Client, of: &str, table: Option<&str>) -> Result<Vec<Account>, Error> {
    let ids = match table {
        Some(table) => {
            let of_table = |one: &v1::Backfill| {
                one.outputs.iter().filter_map(|output| output.table.as_ref()).any(|found| found.table == table)
            };
            client.list().await?.into_iter().filter(of_table).map(|one| one.id).collect()
        }
        None => vec![client.get(of).await?.id],
    };
    let mut accounts = Vec::with_capacity(ids.len());
    for id in ids {
        let mut records = client.journal(&id).await?;
        let mut account = Account::new(&id);
        while let Some(record) = records.message().await.map_err(|status| client.failed(status))? {
            account.book(record).map_err(bad_journal)?;
        }
        accounts.push(account);
    }
    Ok(accounts)
}

fn name_and_phase(account: &Account) -> (String, String) {
    let name = account.spec.as_ref().map(|spec| spec.spec.name.clone()).unwrap_or_default();
    (name, account.phase.as_str_name().trim_start_matches("PHASE_").to_lowercase())
}

fn text(one: &Verified, paint: Paint, wide: bool) -> String {
    let (name, phase) = name_and_phase(&one.account);
    let mut text = format!("{} {name}  {}\n", short_id(&one.account.id), phase.to_uppercase());
    if !one.account.is_over() {
        text.push_str("it goes on: what is not done yet cannot be told\n");
    }
    for check in &one.checks {
        let sign = match check.verdict {
            Verdict::Holds => paint.good("✓"),
            Verdict::Untold => paint.warn("?"),
            Verdict::Broken => paint.bad("✗"),
        };
        let _ = writeln!(text, " {sign} {:<10} {}: {}", check.what, plain(&check.of), plain(&check.text));
        let shown = if wide || check.verdict == Verdict::Broken { usize::MAX } else { FEW };
        for detail in check.details.iter().take(shown) {
            let _ = writeln!(text, "              {}", plain(detail));
        }
        if check.details.len() > shown {
            let _ = writeln!(text, "              and more: -o wide");
        }
    }
    let broken = one.checks.iter().filter(|check| check.verdict == Verdict::Broken).count() as u64;
    let untold = one.checks.iter().filter(|check| check.verdict == Verdict::Untold).count() as u64;
    let said = match (broken, untold) {
        (0, 0) => "everything matches".to_owned(),
        (0, untold) => format!("nothing contradicts it; {untold} of {} checks cannot be told", one.checks.len()),
        (broken, _) => format!("{broken} of {} checks do not match", one.checks.len()),
    };
    let _ = writeln!(text, "{said}");
    text
}

fn document(one: &Verified) -> Verification {
    let (name, phase) = name_and_phase(&one.account);
    let check = |check: &Check| CheckDocument {
        check: check.what,
        of: check.of.clone(),
        verdict: match check.verdict {
            Verdict::Holds => "holds",
            Verdict::Untold => "untold",
            Verdict::Broken => "broken",
        },
        text: check.text.clone(),
        details: check.details.clone(),
    };
    Verification {
        id: one.account.id.clone(),
        name,
        phase,
        matches: matches(one),
        checks: one.checks.iter().map(check).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: &'static str, verdict: Verdict, text: &str, details: usize) -> Check {
        let details = (0..details).map(|number| format!("detail {number}")).collect();
        Check { what, of: "default.air.flights".to_owned(), verdict, text: text.to_owned(), details }
    }

    #[test]
    fn each_check_is_a_line_and_what_is_wrong_is_told_in_full() {
        let checks = vec![
            check("ledger", Verdict::Holds, "5 read = 5 passed", 0),
            check("snapshots", Verdict::Untold, "1/2 commits in the table's ancestry", 1),
            check("manifests", Verdict::Broken, "1/2 files once each\u{7}", 4),
            check("coverage", Verdict::Holds, "3/24 hours have rows", 4),
        ];
        let one = Verified { account: Account::new("bf-7k3m9qabcdefghij"), checks };
        insta::assert_snapshot!(text(&one, Paint::plain(), false));
        assert!(!matches(&one));
    }

    #[test]
    fn a_name_that_means_several_is_refused_and_a_short_beginning_means_nobody() {
        let accounts = || vec![Account::new("bf-aaaa1"), Account::new("bf-aaaa2"), Account::new("bf-bbbb1")];
        assert_eq!(named(accounts(), "bf-b").unwrap().len(), 1);
        assert_eq!(named(accounts(), "bf-aaaa2").unwrap().len(), 1);
        assert_eq!(named(accounts(), "bf-").unwrap().len(), 0);
        assert_eq!(named(accounts(), "bf-aaaa").unwrap_err().exit(), Exit::Usage);
    }
}
