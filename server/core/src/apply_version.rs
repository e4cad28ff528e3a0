//! The version of apply, and how a cluster comes to a newer one (D8).
//!
//! What apply does with an entry must be the same on every replica. A binary can do what it did in several versions; which one is in
//! force is in the state of each partition, and changes at one index of its log. The directory decides on it when every member was heard
//! to be able to apply the newer version, and tells the other partitions by a gate.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version that an empty state begins with. Nodes that form a cluster may be of different binaries, so this is not the newest one:
/// the log raises it from here. It stays as it is for as long as any binary that may take part has it.
pub const FIRST: u16 = 1;

/// The versions of apply that a binary has, or was heard to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyVersions {
    /// The lowest.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl ApplyVersions {
    /// Those of this binary. What apply does with an entry, the limits it checks and the extensions it knows are part of a version: a
    /// change of any of them is a higher `highest`, and happens only in a state that says so.
    pub const THIS: Self = Self { lowest: 1, highest: 1 };

    /// Whether `version` is one of them.
    ///
    /// # Errors
    /// [`CannotApply`].
    pub const fn check(self, version: u16) -> Result<(), CannotApply> {
        if self.lowest <= version && version <= self.highest {
            Ok(())
        } else {
            Err(CannotApply { needed: version, has: self })
        }
    }
}

impl Default for ApplyVersions {
    fn default() -> Self {
        Self::THIS
    }
}

impl fmt::Display for ApplyVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            write!(f, "{}", self.lowest)
        } else {
            write!(f, "{} to {}", self.lowest, self.highest)
        }
    }
}

/// A binary does not have the version of apply that is in force. Says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("apply version {needed} is in force, and this binary has {has}: {}", self.advice())]
pub struct CannotApply {
    /// The version that is in force.
    pub needed: u16,
    /// Those that the binary has.
    pub has: ApplyVersions,
}

impl CannotApply {
    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        if self.needed > self.has.highest {
            "start the binary that the other nodes run; an older one cannot take part again once all have been upgraded"
        } else {
            "upgrade the whole cluster to a version in between first, and let it run until `rove-server cluster status` says that \
             the apply version is raised"
        }
    }
}

/// The version to raise to from `in_force`, if there is a higher one that every one of `members` has; `None` among them is a member that
/// has not been heard.
pub fn raised(in_force: u16, members: impl IntoIterator<Item = Option<ApplyVersions>>) -> Option<u16> {
    let heard: Vec<ApplyVersions> = members.into_iter().collect::<Option<_>>()?;
    let highest = heard.iter().map(|versions| versions.highest).min()?;
    let all_have_it = heard.iter().all(|versions| versions.check(highest).is_ok());
    (all_have_it && highest > in_force).then_some(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `raised` says of members with these lowest and highest versions.
    fn raised_of(in_force: u16, members: &[(u16, u16)]) -> Option<u16> {
        raised(
            in_force,
            members.iter().map(|(lowest, highest)| Some(ApplyVersions { lowest: *lowest, highest: *highest })),
        )
    }

    #[test]
    fn it_is_raised_to_what_every_member_has() {
        assert_eq!(raised_of(1, &[(1, 3), (1, 2), (2, 4)]), Some(2));
        assert_eq!(raised_of(2, &[(1, 3), (1, 2)]), None, "it is in force");
        assert_eq!(raised_of(3, &[(1, 2)]), None, "it never goes back");
        assert_eq!(raised_of(1, &[]), None);
    }

    #[test]
    fn it_is_not_raised_while_a_member_was_not_heard() {
        let heard = ApplyVersions { lowest: 1, highest: 2 };
        assert_eq!(raised(1, [Some(heard), None, Some(heard)]), None);
    }

    #[test]
    fn it_is_not_raised_to_what_some_member_has_no_more() {
        assert_eq!(raised_of(1, &[(1, 2), (3, 4)]), None);
    }

    #[test]
    fn whoever_cannot_apply_is_told_what_to_start() {
        let has = ApplyVersions { lowest: 2, highest: 3 };
        assert_eq!((has.check(2), has.check(3)), (Ok(()), Ok(())));
        let older = has.check(4).unwrap_err().to_string();
        assert!(
            older.starts_with("apply version 4 is in force, and this binary has 2 to 3: start the binary"),
            "{older}"
        );
        let newer = has.check(1).unwrap_err().to_string();
        assert!(newer.contains("a version in between first"), "{newer}");
    }
}
