//! Rove, on its own and as three nodes: through `rove-bench`, whose reports are taken over, and by hand what it has no mode for.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rove_benches::load::session::Handshake;
use rove_benches::load::{Accounts, Conversation, Credentials, Dialer, Pace, Poster, Service, Session};
use rove_benches::{Report, Schedule, Span, milliseconds, sample};
use rove_protocol::ids::{PostNo, WriterId};
use rove_protocol::message::{ConversationDown, Message as _};
use rove_protocol::transport::SendStream as _;
use serde_json::Value;

use crate::link::{Event, Link};
use crate::process::Server;
use crate::results::{Results, Row};
use crate::syncs;
use crate::work::{self, Done, Plan};

const ONE: Row = Row { id: "rove-1", name: "Rove, one node" };
const THREE: Row = Row { id: "rove-3", name: "Rove, three nodes" };

/// As many sessions as the smaller number of etcd's clients, each with all the unanswered posts that a server takes.
const SESSIONS: &str = "64";
const WINDOW: &str = "64";

/// One round.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    results.version("rove", &format!("Rove {}", rove_benches::Machine::look(&plan.dir).rove));
    log_ins(plan, results).await?;
    silence(plan, results).await?;
    for (row, nodes) in [(ONE, 1), (THREE, 3)] {
        results.add(plan, row, &posts(plan, row, nodes).await?);
        let rate = async |rate: &str| bench(plan, nodes, "latency", &["--rate", rate]).await;
        let json = rate("1000").await?;
        let report = Report::new("deliveries", row.name);
        results.add(
            plan,
            row,
            &with_times(report, "deliver", &json["distributions"]["delivered"])?.detail("rove_bench", json),
        );
        let json = rate("200").await?;
        let report = Report::new("acknowledgements", row.name);
        results.add(
            plan,
            row,
            &with_times(report, "ack", &json["distributions"]["acknowledged"])?.detail("rove_bench", json),
        );
    }
    // The hash of each of these accounts' passwords is slow on purpose: it takes a while until they are there.
    let json = bench(plan, 1, "idle", &["--sessions", "200"]).await?;
    let each = figure(&json, "bytes_per_session")? / 1e3;
    let report = Report::new("idle", ONE.name).number("memory of an idle session, kB", "idle_kb", each);
    results.add(plan, ONE, &report.detail("rove_bench", json));
    if let Some(json) = fan_out(plan).await? {
        let rate = figure(&json, "deliveries_per_second")?;
        let report = Report::new("fan-out", ONE.name).number("deliveries/s", "fan_out_per_second", rate);
        results.add(plan, ONE, &report.detail("rove_bench", json));
    }
    Ok(())
}

async fn posts(plan: &Plan, row: Row, nodes: u16) -> Result<Report> {
    let json = bench(plan, nodes, "posts", &["--sessions", SESSIONS, "--window", WINDOW]).await?;
    Ok(Report::new("throughput", row.name)
        .number("acknowledged/s", "per_second", figure(&json, "posts_per_second")?)
        .number("server CPU, s/100k", "cpu_s_per_100k", figure(&json, "cpu_s_per_100k")?)
        .number("memory of a server, MB", "resident_mb", figure(&json, "resident_mb")? / f64::from(nodes))
        .detail("rove_bench", json))
}

/// To a hundred members, as the bare echo has a hundred connections; `None` if `rove-bench` has no such mode.
async fn fan_out(plan: &Plan) -> Result<Option<Value>> {
    let modes = crate::process::output(&beside("rove-bench")?.display().to_string(), &["--help"])?;
    if !modes.contains("fan-out") {
        return Ok(None);
    }
    bench(plan, 1, "fan-out", &["--members", "100"]).await.map(Some)
}

/// A program that was built with this one.
pub(crate) fn beside(program: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(program);
    if !path.is_file() {
        bail!("{} is not there: build it as run.sh does", path.display());
    }
    Ok(path)
}

/// What a mode of `rove-bench` measures, as its JSON.
pub(crate) async fn bench(plan: &Plan, nodes: u16, mode: &str, more: &[&str]) -> Result<Value> {
    let dir = work::fresh_dir(&plan.dir, "rove")?;
    let (program, json) = (beside("rove-bench")?, dir.path().join("report.json"));
    let seconds = |time: Duration| time.as_secs().to_string();
    let mut args = vec!["--dir".to_owned(), dir.path().display().to_string(), "--nodes".to_owned(), nodes.to_string()];
    args.extend(["--json".to_owned(), json.display().to_string(), mode.to_owned()]);
    args.extend(["--seconds".to_owned(), seconds(plan.seconds)]);
    if mode != "idle" {
        args.extend(["--warm-up".to_owned(), seconds(plan.warm_up)]);
    }
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    // In a group of its own: the servers that it starts end with it.
    Server::start("rove-bench", &program.display().to_string(), &args, &[], dir.path())?.finished().await?;
    Ok(serde_json::from_str(&std::fs::read_to_string(json)?)?)
}

pub(crate) fn figure(json: &Value, key: &str) -> Result<f64> {
    json["figures"][key].as_f64().with_context(|| format!("rove-bench does not say {key}"))
}

fn with_times(report: Report, key: &str, times: &Value) -> Result<Report> {
    let at = |percentile: &str| times[percentile].as_f64().with_context(|| format!("rove-bench has no {percentile}"));
    let report = report.number(format!("sent → {key} p50, ms"), &format!("{key}_p50_ms"), at("p50_ms")?);
    Ok(report.number(format!("sent → {key} p99, ms"), &format!("{key}_p99_ms"), at("p99_ms")?))
}

/// Accounts that log in in turns: more than are logged in at once, so that none is itself twice.
const ACCOUNTS: usize = 64;

/// Full handshakes, and `Hello` until `Welcome`, by the device's secret.
async fn log_ins(plan: &Plan, results: &mut Results) -> Result<()> {
    let service = Service::start(&beside("rove-server")?, &plan.dir, 1, "").await?;
    let accounts = Accounts::connect(service.first()).await?.sign_up(ACCOUNTS).await?;
    // A memory of its own for each: nothing is resumed. But one socket: those of other protocols' clients are the kernel's, and what a phone
    // does for its own, an endpoint and its tasks, took more of the shared cores than the server.
    let dialer = Dialer::new(service.first())?;
    let open = async |number: usize| {
        let account = &accounts[number % ACCOUNTS];
        Ok(dialer.enter(&dialer.device()?, account, Handshake::Full).await?)
    };
    results.add(plan, ONE, &work::connections(plan, ONE.name, open, service.first().pid()).await?);
    if plan.round == 1 {
        let (_session, link) = Posts::open(&dialer, &accounts[0], 1).await?;
        let dir = work::fresh_dir(&plan.dir, "strace")?;
        results.fsync(ONE, syncs::count(link, Done::Acknowledged, &service.pids(), dir.path()).await?);
    }
    service.stop().await?;
    Ok(())
}

/// Conversations that are posted to while a node dies: so many that it leads at least one of them.
const CONVERSATIONS: u32 = 12;
/// Posts per second of each: a gap of 10 ms is what there is at least.
const PACE: u32 = 100;
/// Before the kill.
const EVEN: Duration = Duration::from_secs(2);
/// After it: several times what the targets allow.
const AFTER: Duration = Duration::from_secs(8);

/// Kills a node that leads a third of the partitions. Every conversation is posted to through the other two; what counts is the
/// longest silence of any.
async fn silence(plan: &Plan, results: &mut Results) -> Result<()> {
    let service = Service::start(&beside("rove-server")?, &plan.dir, 3, "").await?;
    let accounts = Accounts::connect(service.first()).await?.sign_up(CONVERSATIONS as usize).await?;
    let stay = [Dialer::new(&service.nodes()[1])?, Dialer::new(&service.nodes()[2])?];
    if plan.round == 1 {
        let (_session, link) = Posts::open(&stay[0], &accounts[0], 1).await?;
        let dir = work::fresh_dir(&plan.dir, "strace")?;
        results.fsync(THREE, syncs::count(link, Done::Acknowledged, &service.pids(), dir.path()).await?);
    }
    let mut open = Vec::new();
    for (account, dialer) in accounts.iter().zip(stay.iter().cycle()) {
        open.push(Posts::open(dialer, account, 2).await?);
    }
    let start = Instant::now();
    let span = Span::new(start, EVEN, AFTER);
    let (rate, parts) = (f64::from(CONVERSATIONS * PACE), u64::from(CONVERSATIONS));
    let mut writers = Vec::new();
    for (part, (session, posts)) in (0..).zip(open) {
        let schedule = Schedule::share(start, rate, span.works(start, rate), part, parts)?;
        writers.push(async move {
            // Dropping it would close the connection.
            let _session = session;
            let mut conversation = posts.conversation;
            let mut poster = Poster::new(Pace::Due(schedule), span, rove_protocol::limits::UNANSWERED_POSTS);
            poster.run(&mut conversation).await?;
            anyhow::Ok(poster.outcome().silence)
        });
    }
    let victim = Pid::from_raw(service.first().pid().cast_signed());
    let killing = async {
        tokio::time::sleep_until(span.from().into()).await;
        kill(victim, Signal::SIGKILL).context("killing a node")
    };
    let all = async { tokio::try_join!(try_join_all(writers), killing) };
    let (silences, ()) = tokio::time::timeout(EVEN + AFTER * 3, all).await.context("posts were lost")??;
    let of_each: Vec<_> = silences.iter().map(|silence| milliseconds(*silence)).collect();
    let longest = silences.into_iter().max().unwrap_or_default();
    let report = Report::new("silence", THREE.name)
        .number("longest silence after kill -9, ms", "silence_ms", milliseconds(longest))
        .detail("silence_ms_of_each_conversation", of_each)
        .config("conversations", CONVERSATIONS)
        .config("rate", PACE);
    results.add(plan, THREE, &report);
    // Dropping the service ends the others: it cannot stop one that is gone.
    Ok(())
}

/// Posts to one conversation of one account.
struct Posts {
    conversation: Conversation,
    queued: VecDeque<u64>,
}

impl Posts {
    /// Makes a group and opens it. Dropping the session would close it.
    async fn open(dialer: &Dialer, account: &Credentials, nonce: u8) -> Result<(Session, Self)> {
        let mut session = dialer.session(account).await?;
        let group = session.create_group([nonce; 16], []).await?;
        let conversation = session.open(group, WriterId([nonce; 16])).await?;
        Ok((session, Self { conversation, queued: VecDeque::new() }))
    }
}

impl Link for Posts {
    fn send(&mut self, number: u64) -> Result<()> {
        self.queued.push_back(number);
        Ok(())
    }

    async fn next(&mut self) -> Result<Event> {
        while let Some(number) = self.queued.pop_front() {
            self.conversation.stream.send.write(sample::post(number + 1).to_frame().into()).await?;
        }
        loop {
            match self.conversation.stream.next(ConversationDown::decode, "the conversation").await? {
                ConversationDown::Posted(posted) => return Ok(Event::Acknowledged(before(posted.post_no))),
                ConversationDown::Refused(refused) => return Ok(Event::Refused(before(refused.post_no))),
                _ => {}
            }
        }
    }
}

/// Posts are numbered from 1.
fn before(post_no: PostNo) -> u64 {
    post_no.0.saturating_sub(1)
}
