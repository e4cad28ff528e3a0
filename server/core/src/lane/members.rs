//! Making a partition's group what the map of the cluster says.

use super::Lane;
use crate::membership::{MemberMap, Step, next_step};
use crate::replica::MembersError;

impl Lane {
    /// Does the next thing, if this node leads: asked with every tick, so that it goes on whoever leads and whatever was lost. Says what
    /// it did, or why that could not be yet.
    ///
    /// # Errors
    /// See [`Replica::propose_members`](crate::replica::Replica::propose_members). Nothing has happened; it is tried again.
    pub fn follow(&mut self, map: &MemberMap) -> Result<Option<Step>, MembersError> {
        // One that has just come to lead does not know yet what its predecessor changed.
        if !self.leads() || !self.replica.leads_with_authority() {
            return Ok(None);
        }
        // Whoever takes over goes on; another heir meanwhile would only put an end to it.
        if self.replica.is_transferring() {
            return Ok(None);
        }
        let (me, group) = (self.replica.config().id, self.replica.group());
        let step = next_step(map, self.partition(), me, &group, |replica| self.replica.member_progress(replica));
        match step {
            Some(Step::Change(change)) => self.replica.propose_members(change)?,
            // One that is refused is asked for again.
            Some(Step::HandOver(heir)) if self.hand_over(heir).is_err() => return Ok(None),
            _ => {}
        }
        Ok(step)
    }
}
