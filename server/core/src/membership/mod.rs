//! Who the nodes of a cluster are, and how the groups of its partitions follow when that changes.
//!
//! The truth is one small [`MemberMap`] in the directory, replicated like everything else there: which nodes there are, which data
//! directory each has, how often it was rebuilt, and which partitions it votes in ([`placement`](crate::placement)). A change is a whole new map with the next version, so that of two changes made
//! at once one is overtaken and nothing is lost. The number of a replica says its node and the rebuild
//! ([`member_of`](crate::replica::member_of)); the map gives each number to one data directory, for ever.
//!
//! Nothing else is written down. What a partition's leader proposes next follows from the map and from who is in the group now
//! ([`next_step`]), and is asked again and again: whoever leads goes on where the last leader stopped. A leader whose map is old does
//! no harm: it takes out only numbers that its map calls obsolete, and those are obsolete in every later map.

mod map;
mod steps;
#[cfg(test)]
mod tests;

pub use map::{ADDRESS_BYTES, ChangeError, MEMBERS, Member, MemberMap, NODES, REPLICAS, Standing};
pub use steps::{Step, follows, next_step};
