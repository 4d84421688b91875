//! The marker's truth table, until the sink's own is merged.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerSnapshot {
    InAncestry(i64),
    OffAncestry(i64),
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) same_table: bool,
    pub(super) property: Option<String>,
    pub(super) property_snapshot: MarkerSnapshot,
    pub(super) newest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    AlreadyDone { snapshot: Option<i64> },
    Fenced(String),
    RolledBack(String),
}

pub(super) fn judge(facts: &Facts, own: &str, predecessor: &str) -> Verdict {
    if !facts.same_table {
        return Verdict::Fenced("another table".to_owned());
    }
    let Some(property) = facts.property.as_deref() else {
        let newest = facts.newest.as_deref().unwrap_or_default();
        return if newest == predecessor { Verdict::Go } else { Verdict::Fenced(format!("no property, newest {newest}")) };
    };
    match facts.property_snapshot {
        MarkerSnapshot::OffAncestry(at) => Verdict::RolledBack(format!("{property} in {at}")),
        MarkerSnapshot::InAncestry(at) if property == own => Verdict::AlreadyDone { snapshot: Some(at) },
        MarkerSnapshot::Expired if property == own => Verdict::AlreadyDone { snapshot: None },
        _ if property == predecessor => Verdict::Go,
        _ => Verdict::Fenced(format!("property {property}")),
    }
}
