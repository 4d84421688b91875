//! The live job of a spec: whose group it is, and whether it runs.

use tidegate_common::spec::Resolved;
use tidegate_common::spec::model::LiveSpec;
use tidegate_worker::access::Access;
use tidegate_worker::checkpoint::{Activity, Brokers, Scope, Settings, TopicScope};

use super::checkpoint::{asked, failed};
use crate::exit::{Error, Exit};

/// The live job's group on one cluster, and the spec's topics there.
pub(super) struct LiveGroup {
    /// The cluster.
    pub(super) brokers: Brokers,
    /// The topics.
    pub(super) scope: Scope,
}

impl LiveGroup {
    /// Whether somebody reads under the group's name; a group without positions that nobody knows is nobody's.
    pub(super) fn activity(&self) -> Result<(Activity, String), Error> {
        asked(|| {
            let facts = self.brokers.group()?;
            let activity = match facts.activity() {
                Activity::Untold if self.brokers.committed(&self.brokers.within(&self.scope)?)?.is_empty() => {
                    Activity::Inactive
                }
                activity => activity,
            };
            Ok((activity, facts.who()))
        })
    }
}

/// The live job of `spec` on each cluster that its sources read.
pub(super) fn groups(spec: &Resolved, live: &LiveSpec) -> Result<Vec<LiveGroup>, Error> {
    let mut clusters: Vec<(Settings, Vec<TopicScope>)> = Vec::new();
    for source in &spec.sources {
        let Some(kafka) = source.kafka() else { continue };
        let settings = Settings::of_spec(&kafka.spec, &Access::local()).map_err(failed)?;
        let topic = TopicScope { topic: kafka.spec.topic.clone(), partitions: None };
        match clusters.iter_mut().find(|(held, _)| held.bootstrap() == settings.bootstrap()) {
            Some((_, topics)) if topics.contains(&topic) => {}
            Some((_, topics)) => topics.push(topic),
            None => clusters.push((settings, vec![topic])),
        }
    }
    let open = |(settings, topics): (Settings, Vec<TopicScope>)| {
        let brokers = Brokers::open(&settings, &live.group).map_err(failed)?;
        Ok(LiveGroup { brokers, scope: Scope::Topics(topics) })
    };
    clusters.into_iter().map(open).collect()
}

/// Refuses to start a backfill beside its live job, unless that is meant.
pub(super) fn must_be_paused(spec: &Resolved, live_ok: bool) -> Result<(), Error> {
    let Some(live) = spec.live.as_ref().filter(|_| !live_ok) else { return Ok(()) };
    for group in groups(spec, live)? {
        let (activity, who) = group.activity()?;
        let why = match activity {
            Activity::Inactive => continue,
            Activity::Active => format!("is active ({who})"),
            Activity::Untold => "may be active: the brokers do not tell of groups of its kind".to_owned(),
        };
        return Err(Error::new(
            Exit::Preflight,
            format!("the live job's group {} {why}; nothing was started", live.group),
        )
        .hint("pause it with `tidegate stream pause FILE`, or take --live-ok to run beside it"));
    }
    Ok(())
}

/// How the live job goes on, for people; empty where the spec does not say.
pub(super) fn resume_text(spec: &Resolved, file: &std::path::Path) -> Option<String> {
    let live = spec.live.as_ref()?;
    let command = live.resume.as_deref().map(|resume| format!(", which runs: {}", crate::style::plain(resume)));
    Some(format!(
        "the live job of the group {} is to be resumed: tidegate stream resume {} --from-handoff FILE{}",
        crate::style::plain(&live.group),
        file.display(),
        command.unwrap_or_default()
    ))
}
