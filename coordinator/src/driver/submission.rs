//! A spec as the core needs it.

use tidegate_common::clock;
use tidegate_common::ids::SourceIx;
use tidegate_common::spec::model::{Mode, Publish};
use tidegate_common::spec::{self, RateLimit, Resolved, ResolvedSource, SpecErrors};

use crate::core::{CoreOutput, CoreSpec};

/// Why a spec that came over the wire is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadSpec {
    /// It is not the canonical JSON of a spec.
    #[error("the spec is not canonical JSON")]
    Json(#[from] spec::BadCanonicalSpec),
    /// It says what cannot be.
    #[error("the spec is invalid")]
    Invalid(#[from] SpecErrors),
}

/// The spec that `json` is, checked.
pub fn resolve(json: &str) -> Result<Resolved, BadSpec> {
    Ok(spec::resolve(spec::from_canonical_json(json)?, clock::processing_time_micros())?)
}

fn is_limited(source: &ResolvedSource) -> bool {
    source.kafka().is_some_and(|kafka| kafka.rate_limit != RateLimit::default())
}

/// What the core needs to know of a spec.
pub fn core_spec(resolved: &Resolved) -> CoreSpec {
    let outputs = resolved.outputs.iter().map(|output| CoreOutput {
        name: output.name.clone(),
        commit_every: output.commit_every,
        commit_bytes: output.commit_bytes,
        staged: output.publish == Publish::Staged,
        replaces: output.mode == Mode::ReplaceWindow,
        dead_letters: output.dead_letters.map(|kept| kept.limit),
        late: output.late.policy,
        late_of: output.late_of,
        slice: output.slice,
        buckets: output.buckets,
        budget: output.budget,
    });
    let disorderly = (0..).map(SourceIx::new).zip(&resolved.sources).filter(|(_, source)| source.may_be_late());
    CoreSpec {
        name: resolved.spec.name.clone(),
        window: resolved.window,
        max_drift: resolved.max_drift,
        allow_wide: resolved.allow_wide,
        sources: resolved.sources.iter().map(|source| source.name.clone()).collect(),
        limited: resolved.sources.iter().any(is_limited),
        outputs: outputs.collect(),
        disorderly: disorderly.map(|(ix, _)| ix).collect(),
    }
}
