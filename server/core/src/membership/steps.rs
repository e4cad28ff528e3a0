//! What the leader of a group does next, so that the group becomes what the map says.

use rove_protocol::ids::{NodeId, PartitionId};

use super::map::MemberMap;
use crate::replica::{Group, GroupMember, MemberChange, Progress, node_of};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose this change.
    Change(MemberChange),
    /// Hand leadership over to this replica's node: the leader itself is to go.
    HandOver(NodeId),
}

/// What `me`, the leader of a partition's `group`, does next to make it what `map` says; nothing if that is what it is, or if something
/// has to happen first. `progress` is how the leader sees each replica.
pub fn next_step(
    map: &MemberMap,
    partition: PartitionId,
    me: GroupMember,
    group: &Group,
    progress: impl Fn(GroupMember) -> Progress,
) -> Option<Step> {
    // One change at a time: the end of this one is under way.
    if group.joint {
        return None;
    }
    let sight = Sight { map, partition, me, group, progress };
    // In this order: who comes is on its way first; who is ready takes its place; only then somebody goes.
    sight.newcomer().or_else(|| sight.promotion()).or_else(|| sight.departure())
}

/// Whether a partition's `group` is what `map` says.
pub fn follows(map: &MemberMap, partition: PartitionId, group: &Group) -> bool {
    let same = |wanted: &mut dyn Iterator<Item = GroupMember>, there: &[GroupMember]| {
        let (mut wanted, mut there): (Vec<_>, _) = (wanted.collect(), there.to_vec());
        wanted.sort_unstable();
        there.sort_unstable();
        wanted == there
    };
    !group.joint
        && same(&mut map.wanted(partition), &group.voters)
        && same(&mut map.learners(partition), &group.learners)
}

struct Sight<'a, P> {
    map: &'a MemberMap,
    partition: PartitionId,
    me: GroupMember,
    group: &'a Group,
    progress: P,
}

impl<P: Fn(GroupMember) -> Progress> Sight<'_, P> {
    fn everybody(&self) -> impl Iterator<Item = GroupMember> + '_ {
        self.group.voters.iter().chain(&self.group.learners).copied()
    }

    /// A replica that is not in the group yet.
    fn newcomer(&self) -> Option<Step> {
        // A later one of its node is there: it is the map that is old.
        let late = |new: GroupMember| self.everybody().any(|there| node_of(there) == node_of(new) && there >= new);
        let mut wanted = self.map.wanted(self.partition).chain(self.map.learners(self.partition));
        Some(Step::Change(MemberChange::AddLearner(wanted.find(|new| !late(*new))?)))
    }

    /// A learner that is ready to vote, in the place of its node's last replica if that is still there, otherwise of another one that
    /// is to go: the group is never smaller meanwhile.
    fn promotion(&self) -> Option<Step> {
        let ready = |new: &GroupMember| self.group.learners.contains(new) && (self.progress)(*new).caught_up;
        let new = self.map.wanted(self.partition).find(ready)?;
        let own = |old: &&GroupMember| node_of(**old) == node_of(new) && self.map.is_obsolete(**old);
        let voters = || self.group.voters.iter();
        let going = || voters().filter(|old| self.goes(**old));
        // The leader last: it has to hand over first.
        let other = || going().find(|old| **old != self.me).or_else(|| going().next());
        match voters().find(own).or_else(other) {
            // With nobody to hand over to it makes itself an heir first.
            Some(old) if *old == self.me => {
                let heir = node_of(new) != node_of(self.me);
                self.hand_over().or(heir.then_some(Step::Change(MemberChange::Promote(new))))
            }
            Some(old) => Some(Step::Change(MemberChange::Replace { old: *old, new })),
            None => Some(Step::Change(MemberChange::Promote(new))),
        }
    }

    /// A replica that goes, or votes no longer, without another in its place.
    fn departure(&self) -> Option<Step> {
        if let Some(learner) = self.group.learners.iter().find(|learner| self.map.is_obsolete(**learner)) {
            return Some(Step::Change(MemberChange::Remove(*learner)));
        }
        if self.is_awaited() {
            return None;
        }
        // One without which those that answer decide: while one of three is dead, it has to be that one.
        let may = |old: &&GroupMember| (self.goes(**old) || self.learns(**old)) && self.leaves_a_majority(**old);
        match *self.group.voters.iter().find(may)? {
            old if old == self.me => self.hand_over(),
            old if self.learns(old) => Some(Step::Change(MemberChange::Demote(old))),
            old => Some(Step::Change(MemberChange::Remove(old))),
        }
    }

    /// Whether a voter goes without another replica of its node in its place.
    fn goes(&self, old: GroupMember) -> bool {
        self.map.is_obsolete(old) && !self.has_successor(old)
    }

    /// Whether a replica is not to vote.
    fn learns(&self, replica: GroupMember) -> bool {
        self.map.learners(self.partition).any(|learner| learner == replica)
    }

    /// Whether the group would be smaller without one that goes than it is to be, and somebody is on the way to take the place.
    fn is_awaited(&self) -> bool {
        let comes = |new: GroupMember| !self.group.voters.contains(&new);
        self.group.voters.len() <= self.map.wanted(self.partition).count() && self.map.wanted(self.partition).any(comes)
    }

    /// Whether another replica of its node is about to take its place.
    fn has_successor(&self, old: GroupMember) -> bool {
        let of_its_node = |new: &GroupMember| node_of(*new) == node_of(old);
        self.map.wanted(self.partition).filter(of_its_node).any(|new| !self.group.voters.contains(&new))
    }

    /// Whether those that answer can still decide without `old`.
    fn leaves_a_majority(&self, old: GroupMember) -> bool {
        let rest = || self.group.voters.iter().filter(|voter| **voter != old);
        let active = rest().filter(|voter| **voter == self.me || (self.progress)(**voter).active).count();
        active > rest().count() / 2
    }

    /// To the one that stays and has most.
    fn hand_over(&self) -> Option<Step> {
        let stays = |heir: &&GroupMember| {
            **heir != self.me && !self.map.is_obsolete(**heir) && !self.learns(**heir) && (self.progress)(**heir).active
        };
        let heir = self.group.voters.iter().filter(stays).max_by_key(|heir| (self.progress)(**heir).matched)?;
        Some(Step::HandOver(node_of(*heir)))
    }
}
