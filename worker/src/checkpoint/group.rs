//! The state of a consumer group, as its coordinator tells it.

use rdkafka::groups::GroupInfo;

/// Whether somebody reads under a group's name.
///
/// | the coordinator says | |
/// |---|---|
/// | Empty | inactive |
/// | Dead, and the group has no member that is told | untold: there is no such group, or it is one of the newer protocol, whose members only newer clients are told |
/// | anything else | active |
///
/// Consumers that assign partitions to themselves (Flink's do) are members of no group: nobody can see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It has no members.
    Inactive,
    /// It has members, or is about to.
    Active,
    /// The coordinator does not tell; it refuses positions from others all the same while there are members.
    Untold,
}

impl Activity {
    /// In one word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Active => "active",
            Self::Untold => "not told",
        }
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, given by the coordinator.
    pub id: String,
    /// What it calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFacts {
    /// Its name.
    pub name: String,
    /// The state in Kafka's word: `Stable`, `Empty`, `Dead`.
    pub state: String,
    /// `consumer` of consumers; `connect` and others of others.
    pub protocol_type: String,
    /// Its members, as far as they are told.
    pub members: Vec<Member>,
}

impl GroupFacts {
    pub(super) fn of(info: &GroupInfo) -> Self {
        let member = |member: &rdkafka::groups::GroupMemberInfo| Member {
            id: member.id().to_owned(),
            client: member.client_id().to_owned(),
            host: member.client_host().trim_start_matches('/').to_owned(),
        };
        Self {
            name: info.name().to_owned(),
            state: info.state().to_owned(),
            protocol_type: info.protocol_type().to_owned(),
            members: info.members().iter().map(member).collect(),
        }
    }

    /// Whether somebody reads under its name.
    pub fn activity(&self) -> Activity {
        match self.state.as_str() {
            _ if !self.members.is_empty() => Activity::Active,
            "Empty" => Activity::Inactive,
            "Dead" | "Unknown" | "" => Activity::Untold,
            _ => Activity::Active,
        }
    }

    /// Its members in a few words.
    pub fn who(&self) -> String {
        let few: Vec<String> =
            self.members.iter().take(3).map(|member| format!("{} at {}", member.client, member.host)).collect();
        let more = self.members.len().saturating_sub(few.len());
        match (few.is_empty(), more) {
            (true, _) => format!("its state is {}", self.state),
            (false, 0) => format!("{}: {}", self.state, few.join(", ")),
            (false, more) => format!("{}: {} and {more} more", self.state, few.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_inactive_only_where_its_coordinator_says_so() {
        let group = |state: &str, members: usize| {
            let member = Member { id: "m".to_owned(), client: "c".to_owned(), host: "h".to_owned() };
            let (name, protocol_type) = ("g".to_owned(), "consumer".to_owned());
            GroupFacts { name, state: state.to_owned(), protocol_type, members: vec![member; members] }.activity()
        };
        for (state, members, activity) in [
            ("Empty", 0, Activity::Inactive),
            ("Dead", 0, Activity::Untold),
            ("", 0, Activity::Untold),
            ("Stable", 2, Activity::Active),
            ("PreparingRebalance", 0, Activity::Active),
            ("CompletingRebalance", 1, Activity::Active),
            ("Empty", 1, Activity::Active),
        ] {
            assert_eq!(group(state, members), activity, "{state} with {members}");
        }
    }
}
