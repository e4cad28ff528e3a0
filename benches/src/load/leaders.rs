//! Who leads, as `rove-server cluster status --json` says.

use std::collections::BTreeMap;

use serde_json::Value;

/// The node that leads most partitions; of several the one with the lowest id. `None` if nobody is known to lead any.
pub(super) fn busiest(status: &Value) -> Option<u64> {
    let mut led = BTreeMap::<u64, usize>::new();
    for leader in status["partitions"].as_array()?.iter().filter_map(|partition| partition["leader"].as_u64()) {
        *led.entry(leader).or_default() += 1;
    }
    led.into_iter().rev().max_by_key(|(_, partitions)| *partitions).map(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn led_by(leaders: &[Option<u64>]) -> Option<u64> {
        let partitions: Vec<_> = leaders.iter().map(|leader| json!({ "leader": leader })).collect();
        busiest(&json!({ "node": 9, "partitions": partitions }))
    }

    #[test]
    fn the_busiest_node_leads_most_partitions_and_one_without_a_leader_counts_for_nobody() {
        assert_eq!(led_by(&[Some(1), Some(3), None, Some(3), None, None]), Some(3));
        assert_eq!(led_by(&[Some(2), Some(1)]), Some(1), "the lowest of several");
        assert_eq!(led_by(&[None]), None);
        assert_eq!(busiest(&json!({})), None);
    }
}
