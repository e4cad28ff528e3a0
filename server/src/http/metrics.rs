//! Figures for Prometheus: what the node and the edge count, under names with units.
//!
//! The node and the edge count in plain atomics and know nothing of this; a scrape reads them. Counters end in `_total`, times are
//! seconds, sizes bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::edge::EdgeStats;
use crate::node::{Node, Role};
use crate::nodes::{Nodes, Seen};

/// A request of the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// The registry and what the API itself counts.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    hashes: Gauge,
}

impl Metrics {
    pub(super) fn new(nodes: Arc<Nodes>) -> Self {
        let mut registry = Registry::with_prefix("rove");
        let requests = Family::default();
        registry.register("http_requests", "Requests of the HTTP API, by route and status", requests.clone());
        // 1 ms to 8 s: a look-up takes less, a log-in behind a full queue of hashes more.
        let duration = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        registry.register_with_unit(
            "http_request_duration",
            "Time from the head of a request to the head of its answer",
            Unit::Seconds,
            duration.clone(),
        );
        let hashes = Gauge::default();
        registry.register("password_hashes", "Password hashes under way and waiting", hashes.clone());
        registry.register_collector(Box::new(NodeCollector(nodes.node().clone())));
        registry.register_collector(Box::new(EdgeCollector(nodes.stats().clone())));
        registry.register_collector(Box::new(ClusterCollector(nodes)));
        Self { registry, requests, duration, hashes }
    }

    /// Counts an answer. Routes there are not are one route: a label must not be a client's choice.
    pub(super) fn count(&self, route: Option<String>, status: StatusCode, took: Duration) {
        let labels = RequestLabels { route: route.unwrap_or_else(|| "none".to_owned()), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Everything, as text.
    pub(super) fn encode(&self, hashes: usize) -> Result<String, fmt::Error> {
        self.hashes.set(i64::try_from(hashes).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Writes single figures.
struct Figures<'a>(DescriptorEncoder<'a>);

impl Figures<'_> {
    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        let metric = ConstCounter::new(value.load(Ordering::Relaxed));
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    /// A counter that is kept elsewhere.
    fn total(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    /// A counter of nanoseconds, shown in seconds.
    fn seconds(&mut self, name: &str, help: &str, nanos: &AtomicU64) -> fmt::Result {
        let metric = ConstCounter::new(Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64());
        metric.encode(self.0.encode_descriptor(name, help, Some(&Unit::Seconds), metric.metric_type())?)
    }

    fn bytes(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        let metric = ConstCounter::new(value.load(Ordering::Relaxed));
        metric.encode(self.0.encode_descriptor(name, help, Some(&Unit::Bytes), metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn level(&mut self, name: &str, help: &str, value: &AtomicUsize) -> fmt::Result {
        self.gauge(name, help, value.load(Ordering::Relaxed) as u64)
    }

    /// One gauge for each of some labels.
    fn gauges<'k, L: EncodeLabelSet>(
        &mut self,
        name: &'k str,
        help: &str,
        unit: Option<&'k Unit>,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What the node counts.
struct NodeCollector(Node);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeCollector").field(&self.0.id()).finish()
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let mut f = Figures(encoder);
        f.gauge("node_ready", "1 once the log is replayed and the node serves", u64::from(self.0.is_ready()))?;
        f.counter("commands_queued", "Commands accepted into a queue", &stats.commands_queued)?;
        f.counter("commands_refused_busy", "Commands refused because a queue was full", &stats.commands_refused_busy)?;
        f.counter(
            "commands_refused_no_leader",
            "Commands refused because this replica did not lead",
            &stats.commands_refused_no_leader,
        )?;
        f.counter(
            "commands_refused_disk",
            "Commands refused because the disk is almost full",
            &stats.commands_refused_disk,
        )?;
        f.gauge(
            "disk_low",
            "1 while the disk is almost full and commands are refused",
            u64::from(self.0.is_disk_low()),
        )?;
        f.gauge(
            "disk_free_bytes",
            "Bytes that may still be written to the disk of data_dir",
            stats.disk_free_bytes.load(Ordering::Relaxed),
        )?;
        f.gauge(
            "clock_far",
            "1 while this node's clock is far from the other nodes', so that it leads nothing",
            u64::from(self.0.is_clock_far()),
        )?;
        f.gauge(
            "clock_off_milliseconds",
            "How far this node's clock is from the median of all nodes', ahead or behind",
            stats.clock_ahead_ms.load(Ordering::Relaxed).unsigned_abs(),
        )?;
        f.gauge(
            "certificate_expires",
            "When the certificate for clients expires, in seconds of the Unix epoch",
            stats.certificate_expires.load(Ordering::Relaxed),
        )?;
        f.gauge(
            "node_certificate_expires",
            "When the certificate for other nodes expires, in seconds of the Unix epoch; 0: there is none",
            stats.node_certificate_expires.load(Ordering::Relaxed),
        )?;
        f.counter("posts_applied", "Posts accepted by applying the log", &stats.posts_applied)?;
        f.counter("events_applied", "Events appended to conversations", &stats.events_applied)?;
        f.counter("log_entries_proposed", "Log entries proposed here", &stats.entries_proposed)?;
        f.counter("log_entries_applied", "Log entries applied to conversations", &stats.entries_applied)?;
        f.counter(
            "directory_entries_applied",
            "Log entries applied to the directory",
            &stats.directory_entries_applied,
        )?;
        f.counter("log_writes", "Writes of the raft log", &stats.log_writes)?;
        f.counter("replica_rounds", "Rounds of the thread that drives the replicas", &stats.replica_rounds)?;
        f.counter("replica_ticks", "Those of them that passed on a unit of time", &stats.replica_ticks)?;
        f.counter("log_syncs", "Writes of the raft log that were synced", &stats.log_syncs)?;
        f.bytes("log_written", "Written to the raft log", &stats.log_written_bytes)?;
        f.seconds("log_sync_time", "Spent in synced writes of the raft log", &stats.log_sync_nanos)?;
        f.counter("apply_rounds", "Rounds of the state writer", &stats.apply_rounds)?;
        f.seconds("apply_time", "Spent applying and writing conversation state", &stats.apply_nanos)?;
        f.counter("state_flushes", "Flushes of the conversation state", &stats.state_flushes)?;
        f.seconds("state_flush_time", "Spent in flushes of the conversation state", &stats.state_flush_nanos)?;
        f.counter("answers", "Answers given to those who waited", &stats.answers)?;
        f.counter("gates_done", "Gates carried through to every partition", &stats.gates_done)?;
        f.counter("snapshots_sent", "Snapshots that peers have taken", &stats.snapshots_sent)?;
        f.counter("snapshots_failed", "Snapshots for peers that did not get there", &stats.snapshots_failed)?;
        f.bytes("snapshots_sent", "Of snapshots, read for peers", &stats.snapshot_bytes_sent)?;
        f.counter(
            "snapshots_installed",
            "Snapshots of peers that took the place of a state here",
            &stats.snapshots_installed,
        )?;
        f.bytes("snapshots_received", "Of snapshots, come from peers", &stats.snapshot_bytes_received)?;
        f.counter("reads_done", "Reads done by the read pool", &stats.reads_done)?;
        f.level("reads_queued", "Reads waiting or running", &stats.reads_queued)?;
        f.level("tickets", "Who wait for an answer", &stats.tickets)?;
        f.level("proposals_queued", "Commands waiting before the log", &stats.proposals_queued)?;
        self.partitions(&mut f)
    }
}

impl NodeCollector {
    fn partitions(&self, f: &mut Figures<'_>) -> fmt::Result {
        let replicas = self.0.partition_stats();
        let mut each =
            |name: &str, help: &str, unit: Option<&Unit>, value: &dyn Fn(&crate::node::PartitionStats) -> u64| {
                f.gauges(
                    name,
                    help,
                    unit,
                    replicas.iter().map(|replica| ([("partition", replica.partition.0)], value(replica))),
                )
            };
        each("partition_leader", "1 where this replica leads", None, &|replica| {
            u64::from(replica.role == Role::Leader)
        })?;
        each("partition_term", "Raft's term", None, &|replica| replica.term)?;
        each("partition_committed_index", "Last committed index", None, &|replica| replica.committed)?;
        each("partition_applied_index", "Last applied index", None, &|replica| replica.applied)?;
        each("partition_durable_index", "Last index durable in the state", None, &|replica| replica.durable)?;
        // Without its highest bit: a gauge has a sign.
        each("partition_state_hash", "Hash of the state at the last applied index", None, &|replica| {
            replica.state_hash >> 1
        })?;
        each("partition_log", "Log entries held in memory", Some(&Unit::Bytes), &|replica| replica.log_bytes)?;
        each("partition_queued", "Commands waiting to be proposed", None, &|replica| replica.queued as u64)
    }
}

/// The other nodes, as this one sees them.
#[derive(Debug)]
struct ClusterCollector(Arc<Nodes>);

impl Collector for ClusterCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut f = Figures(encoder);
        f.gauge("node_draining", "1 while the node is about to leave", u64::from(self.0.leaving().is_draining()))?;
        let seen = self.0.seen();
        let peers = || seen.iter().filter_map(|seen| Some((seen, seen.link.as_ref()?)));
        let label = |seen: &Seen| [("peer", seen.node.0)];
        f.gauges(
            "peer_connected",
            "1 while there is a connection with the node",
            None,
            peers().map(|(seen, link)| (label(seen), u64::from(link.connected))),
        )?;
        f.gauges(
            "peer_healthy",
            "1 while the node says that it is ready",
            None,
            peers().map(|(seen, _)| (label(seen), u64::from(seen.healthy))),
        )?;
        f.gauges(
            "peer_links",
            "Connections there have been with the node",
            None,
            peers().map(|(seen, link)| (label(seen), link.links)),
        )?;
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        f.gauges(
            "peer_rtt_microseconds",
            "The round trip to the node",
            None,
            peers().filter_map(|(seen, link)| Some((label(seen), micros(link.rtt?)))),
        )
    }
}

/// What the edge counts.
#[derive(Debug)]
struct EdgeCollector(Arc<EdgeStats>);

impl Collector for EdgeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        let mut f = Figures(encoder);
        f.level("sessions", "Authenticated sessions", &stats.sessions)?;
        f.level("connections", "QUIC connections, authenticated or not", &stats.connections)?;
        f.level("handshakes", "QUIC handshakes under way", &stats.handshakes)?;
        f.counter("connections_accepted", "QUIC connections accepted", &stats.accepted)?;
        f.counter("connections_retried", "Connections asked to prove their address", &stats.retried)?;
        f.counter("connections_refused", "Connections refused: too many in all", &stats.refused_total)?;
        f.counter(
            "connections_refused_per_address",
            "Connections refused: too many from their address",
            &stats.refused_per_address,
        )?;
        f.counter("early_sessions", "Sessions that began with early data (0-RTT)", &stats.early_sessions)?;
        f.total("early_rejected", "Early data rejected: the TLS session is not known", stats.early_rejected())?;
        f.gauge("tls_sessions", "TLS sessions remembered for resumption", stats.tls_sessions() as u64)?;
        f.counter("sessions_told_to_go", "Sessions told to go to another node", &stats.told_to_go)?;
        f.counter("unauthenticated", "Hellos that failed", &stats.unauthenticated)?;
        let streams = [
            ([("type", "conversation")], stats.conversation_streams.load(Ordering::Relaxed) as u64),
            ([("type", "inbox")], stats.inbox_streams.load(Ordering::Relaxed) as u64),
            ([("type", "fetch")], stats.fetch_streams.load(Ordering::Relaxed) as u64),
        ];
        f.gauges("streams", "Open streams by type", None, streams.into_iter())?;
        f.counter("posts", "Posts taken from clients", &stats.posts)?;
        f.counter("requests", "Requests taken from clients", &stats.requests)?;
        f.counter("events_sent", "Events handed to streams", &stats.events_sent)?;
        f.counter("ring_misses", "Times a stream had to read from the store", &stats.ring_misses)?;
        f.counter("inbox_lines_sent", "Inbox lines handed to streams", &stats.lines_sent)?;
        f.counter("pages", "Pages of history served", &stats.pages)?;
        f.counter("datagrams", "Datagrams taken from clients", &stats.datagrams)?;
        f.counter("datagrams_dropped", "Datagrams dropped: too many", &stats.datagrams_dropped)?;
        f.counter("member_loads", "Members read from the store", &stats.member_loads)?;
        let mut closes =
            f.0.encode_descriptor("sessions_closed", "Sessions that ended, by code", None, MetricType::Counter)?;
        for (code, count) in stats.closes() {
            ConstCounter::new(count).encode(closes.encode_family(&[("code", code.to_string())])?)?;
        }
        Ok(())
    }
}
