//! A cluster, people who talk on it, and the end of it: healed, at rest, read in full on every node, and judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Method;
use quinn::ClientConfig;
use rove_core::placement::ShardMap;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PartitionId};
use rove_protocol::message::{Body as _, CreateDirect, CreateGroup, MemberChange};
use rove_protocol::registry::{Method as Asked, Role};
use rove_sim::checker::Violation;
use rove_sim::history::Record;
use rove_sim::rng::Rng;
use rove_tests::raw::Credentials;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Api;
use crate::client::{Client, Phase, World, conversation_of, full_read};
use crate::nodes::{NODES, Nodes};
use crate::recorder::{Counts, PARTITIONS, Recorder, Recovery};
use crate::relay::Mesh;
use crate::session::Session;
use crate::watch::Watch;

/// Accounts; each conversation has some of them.
const ACCOUNTS: usize = 4;
/// Devices of each account: one for each client of it, and the last one to look at a node without taking the place of a client.
const DEVICES: usize = 7;
/// Clients of each group, on devices of three accounts.
const CLIENTS_OF_GROUP: usize = 3;
/// After the last fault, everything must be well within this. An election takes half a second; a restarted debug build on a busy machine,
/// connections that back off, and a client that is silent for three seconds before it goes elsewhere take the rest.
const WELL_WITHIN: Duration = Duration::from_secs(45);
/// How often a condition is looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an attempt to set something up is repeated.
const SET_UP_WITHIN: Duration = Duration::from_secs(60);

/// How a run is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Between two posts of one client.
    pub(crate) pace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        // 20 clients at this pace are 400 posts a second: enough that something is always on its way, and little enough that two
        // cores have time for everything else.
        Self { seed: 1, pace: Duration::from_millis(50) }
    }
}

/// Done to the nodes' places before they start.
pub(crate) type Before = fn(&mut Nodes) -> Result<(), String>;

/// Everything of a run.
pub(crate) struct Arena {
    pub(crate) nodes: Nodes,
    pub(crate) mesh: Mesh,
    pub(crate) watch: Watch,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) rng: Rng,
    pub(crate) world: Arc<World>,
    phase: watch::Sender<Phase>,
    deadline: watch::Sender<Option<Instant>>,
    clients: JoinSet<Result<(), String>>,
    /// A device of each person that no client has.
    pub(crate) readers: Vec<Credentials>,
    /// Each conversation with a reader that is a member.
    conversations: BTreeMap<ConversationId, Credentials>,
    _watching: JoinSet<()>,
    _dir: TempDir,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) recovered: Vec<Recovery>,
    pub(crate) violations: Vec<Violation>,
    /// What kept it from being judged in full; empty if nothing did.
    pub(crate) troubles: Vec<String>,
}

impl Arena {
    /// Starts three nodes, signs people up and lets them talk. Returns when every partition takes posts.
    ///
    /// # Errors
    /// What `before` says, which may do something to the nodes' places before they start.
    pub(crate) async fn start(options: Options, before: Option<Before>) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut nodes, mesh) = Nodes::prepare(dir.path(), options.seed).await;
        if let Some(before) = before {
            before(&mut nodes)?;
        }
        for node in NODES {
            nodes.start(node);
        }
        for node in NODES {
            nodes.serves(node).await.unwrap_or_else(|error| panic!("{error}"));
        }
        let recorder = Arc::new(Recorder::default());
        let (watch, watching) = Watch::start(&nodes, &recorder);
        let (phase, phases) = watch::channel(Phase::Load);
        let world = Arc::new(World {
            nodes: NODES.map(|node| nodes.home(node).clients).into(),
            tls: World::tls(&nodes.trust),
            recorder: Arc::clone(&recorder),
            watch: watch.clone(),
            phase: phases,
            pace: options.pace,
            unanswered: AtomicUsize::new(0),
        });
        let people = sign_up(&nodes).await;
        let talks = conversations(&world, &people).await;
        let mut arena = Self {
            nodes,
            mesh,
            watch,
            recorder,
            rng: Rng::new(options.seed),
            world,
            phase,
            deadline: watch::channel(None).0,
            clients: JoinSet::new(),
            readers: people.iter().filter_map(|devices| devices.last().cloned()).collect(),
            conversations: BTreeMap::new(),
            _watching: watching,
            _dir: dir,
        };
        arena.let_talk(talks, options.seed);
        arena.accepts_everywhere().await.unwrap_or_else(|error| panic!("before any fault: {error}"));
        Ok(arena)
    }

    fn let_talk(&mut self, talks: Vec<(ConversationId, Vec<Credentials>)>, seed: u64) {
        let mut number = 0;
        for (conversation, devices) in talks {
            let reader = self.readers.iter().find(|reader| reader.account == devices[0].account);
            self.conversations.insert(conversation, reader.expect("one of each person").clone());
            for device in devices {
                number += 1;
                let client = Client::new(number, device, conversation, Arc::clone(&self.world), seed);
                self.clients.spawn(client.run(self.deadline.subscribe()));
            }
        }
    }

    /// Waits until a post that is sent from now on has been taken by every partition.
    pub(crate) async fn accepts_everywhere(&mut self) -> Result<(), String> {
        let before = self.recorder.recovered().len();
        let all: Vec<PartitionId> = (1..=PARTITIONS).map(PartitionId).collect();
        self.recorder.wait_for(&all);
        let waited =
            self.until("every partition takes posts", WELL_WITHIN, |arena| arena.recorder.nothing_waits()).await;
        // These are no recoveries from anything.
        self.recorder.forget_recovered(before);
        waited
    }

    /// Waits for a condition.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        while !holds(self) {
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {within:?}"));
            }
            // Other processes: there is nothing to be told by.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Lets the load go on for a while.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Starts what does not run, lets everything through, and waits until every node serves and leads or follows.
    pub(crate) async fn heal(&mut self) -> Result<(), String> {
        self.mesh.links.heal();
        for node in NODES {
            self.nodes.signal(node, nix::sys::signal::Signal::SIGCONT);
            if !self.nodes.runs(node) {
                self.nodes.start(node);
            }
        }
        for node in NODES {
            self.nodes.serves(node).await?;
        }
        self.accepts_everywhere().await
    }

    /// Ends the load, has everything answered and read, compares the replicas, and judges the history.
    pub(crate) async fn finish(mut self) -> Outcome {
        let mut troubles = Vec::new();
        self.recorder.be_quiet();
        self.recorder.record(&Record::Healed { within_us: u64::try_from(WELL_WITHIN.as_micros()).unwrap_or(u64::MAX) });
        let healed_at = Instant::now();
        troubles.extend(self.heal().await.err());
        let _ = self.deadline.send(Some(healed_at + WELL_WITHIN));
        let _ = self.phase.send(Phase::Finish);
        while let Some(ended) = self.clients.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(trouble)) => troubles.push(trouble),
                Err(error) => troubles.push(error.to_string()),
            }
        }
        match self.until("the replicas come to rest", WELL_WITHIN, |arena| arena.watch.at_rest().is_some()).await {
            Ok(()) => self.compare(),
            Err(error) => troubles.push(format!("{error}: {}", self.state())),
        }
        self.recorder.record(&Record::Settled);
        for node in NODES {
            match self.read_everything(node).await {
                Ok(logs) => logs.iter().for_each(|log| self.recorder.record(log)),
                Err(error) => troubles.push(error),
            }
        }
        for node in NODES {
            if let Some(panic) = self.nodes.log(node).lines().find(|line| is_a_bug(line)) {
                troubles.push(format!("node {node}: {panic}"));
            }
        }
        let (counts, recovered) = (self.recorder.counts(), self.recorder.recovered());
        Outcome { counts, recovered, violations: self.recorder.judge(), troubles }
    }

    /// I8: what every replica says of its state at the same index.
    fn compare(&self) {
        for (node, views) in self.watch.at_rest().unwrap_or_default() {
            // Without it, nothing would be compared.
            if views.iter().all(|view| view.state_hash == 0) {
                self.recorder.record(&Record::Wrong { what: format!("node {node} tells no hash of its states") });
            }
            for (number, view) in (0..).zip(views) {
                self.recorder.record(&Record::Applied {
                    node: NodeId(node),
                    partition: PartitionId(number),
                    index: view.applied,
                    // Of the entry itself nothing is known from outside.
                    term: 0,
                    digest: 0,
                    state: view.state_hash,
                });
            }
        }
    }

    /// Where every replica is, for reports.
    pub(crate) fn state(&self) -> String {
        let of = |node| {
            let views = self.watch.of(node).unwrap_or_default();
            let each = views.iter().map(|view| {
                format!("{}{}/{}@{}", if view.leads { "*" } else { "" }, view.applied, view.committed, view.term)
            });
            format!("node {node}: [{}]", each.collect::<Vec<_>>().join(" "))
        };
        NODES.map(of).join("; ")
    }

    /// Reads every conversation on a node, from its first event to the last one that anybody knows of.
    ///
    /// # Errors
    /// Which of them it does not show in full.
    pub(crate) async fn read_everything(&self, node: u64) -> Result<Vec<Record>, String> {
        let (address, mut logs) = (self.nodes.home(node).clients, Vec::new());
        for (conversation, who) in &self.conversations {
            let head = self.recorder.known(*conversation);
            let read = full_read(address, &self.world.tls, who, *conversation, head).await;
            let messages = read.map_err(|error| format!("{conversation} cannot be read on node {node}: {error}"))?;
            logs.push(Record::FinalLog { node: NodeId(node), conversation: *conversation, messages });
        }
        Ok(logs)
    }
}

/// A thread that panics: but for the log's library, which does so on purpose where a sync has failed, and for those that were told to.
fn is_a_bug(line: &str) -> bool {
    let fails_to_sync =
        line.contains("raft-engine") && line.contains("log_file.rs") || line.contains("error: \"fdatasync\"");
    let was_told = line.contains("crash_points.rs") || line.contains(crate::faults::CRASH_AT);
    line.contains("panicked") && !fails_to_sync && !was_told
}

/// Signs up a few accounts, each with some devices.
async fn sign_up(nodes: &Nodes) -> Vec<Vec<Credentials>> {
    let mut api = Api::connect(nodes.home(1).clients, &nodes.trust).await.expect("node 1 serves");
    let mut people = Vec::new();
    for number in 0..ACCOUNTS {
        let mut devices = Vec::new();
        for device in 0..DEVICES {
            let path = if device == 0 { "/v1/sign-up" } else { "/v1/log-in" };
            devices.push(self::device(&mut api, path, number).await.unwrap_or_else(|error| panic!("{error}")));
        }
        people.push(devices);
    }
    people
}

/// A device of this person, who signs up or logs in.
pub(crate) async fn device(api: &mut Api, path: &str, person: usize) -> Result<Credentials, String> {
    let body = json!({ "handle": format!("person{person}"), "password": "correct horse battery" }).to_string();
    let deadline = Instant::now() + SET_UP_WITHIN;
    loop {
        match api.ask(Method::POST, path, body.clone().into()).await {
            Ok((200 | 201, answer)) => {
                let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
                return credentials(&answer).ok_or_else(|| format!("no credentials: {answer}"));
            }
            // Leaders may still be chosen.
            Ok((503, _)) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            other => return Err(format!("{path} of person{person}: {other:?}")),
        }
    }
}

/// What a device needs for `Hello`, as the API answers.
pub(crate) fn credentials(answer: &Value) -> Option<Credentials> {
    // Ids are numbers or, for JavaScript's sake, texts.
    let id = |name: &str| answer[name].as_u64().or_else(|| answer[name].as_str()?.parse().ok());
    Some(Credentials {
        account: AccountId(id("account")?),
        device: DeviceId(id("device")?),
        secret: URL_SAFE_NO_PAD.decode(answer["device_secret"].as_str()?).ok()?.into(),
    })
}

/// A group in every partition, and a direct conversation: each with the devices that talk in it.
async fn conversations(world: &World, people: &[Vec<Credentials>]) -> Vec<(ConversationId, Vec<Credentials>)> {
    let mut spare: Vec<std::slice::Iter<'_, Credentials>> = people.iter().map(|devices| devices.iter()).collect();
    let mut next = |person: usize| spare[person % people.len()].next().expect("a device for each client").clone();
    let (node, tls) = (world.nodes[0], &world.tls);
    let mut talks = Vec::new();
    for number in 0..usize::from(PARTITIONS) {
        let devices: Vec<Credentials> = (0..CLIENTS_OF_GROUP).map(|other| next(number + other)).collect();
        let partition = PartitionId(u16::try_from(number + 1).expect("a small number"));
        let members: Vec<AccountId> = devices[1..].iter().map(|device| device.account).collect();
        let body = group(devices[0].account, partition, 0, &members);
        let made = made(node, tls, &devices[0], Asked::CreateGroup, body).await;
        talks.push((made.expect("a group"), devices));
    }
    let devices = vec![next(0), next(1)];
    let body = CreateDirect { peer: devices[1].account }.encode_body().into();
    let made = made(node, tls, &devices[0], Asked::CreateDirect, body).await;
    talks.push((made.expect("a direct conversation"), devices));
    talks
}

/// What asks for a group that lives in this partition; another one for another `from`.
pub(crate) fn group(creator: AccountId, partition: PartitionId, from: u64, members: &[AccountId]) -> Bytes {
    let nonces = (from..).map(|number| {
        let mut nonce = [0; 16];
        nonce[8..].copy_from_slice(&number.to_be_bytes());
        nonce
    });
    let lives = |nonce: &[u8; 16]| {
        ShardMap::even(PARTITIONS).of_conversation(ConversationId::group(creator, *nonce)) == partition
    };
    let nonce = nonces.take(10_000).find(lives).expect("a sixth of all are in it");
    let members = members.iter().map(|account| MemberChange { account: *account, role: Role::Member }).collect();
    CreateGroup { nonce, title: format!("a group in {partition}"), members }.encode_body().into()
}

/// Has a node make or change a conversation, however often it has to be asked.
pub(crate) async fn made(
    node: SocketAddr,
    tls: &ClientConfig,
    who: &Credentials,
    method: Asked,
    body: Bytes,
) -> Result<ConversationId, String> {
    let deadline = Instant::now() + SET_UP_WITHIN;
    loop {
        let tried = async {
            let mut session = Session::welcomed(node, tls, who).await?;
            session.ask(1, method, body.clone()).await?;
            conversation_of(session.answer().await?)
        };
        match tried.await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            ended => return ended,
        }
    }
}
