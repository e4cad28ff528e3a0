//! The floor of what Rove builds on: a bare echo over QUIC, with the same quinn, windows and TLS as Rove has. `rove-bench` has it.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use rove_benches::Report;
use rove_benches::load::echo::EchoDialer;
use rove_benches::load::server::listening;
use tokio::process::Command;

use crate::results::{Results, Row};
use crate::rove::{bench, beside, figure};
use crate::work::{self, Plan};

const UNDER_WAY_16: Row = Row { id: "quic-16", name: "bare QUIC, echo, 16 under way" };
const UNDER_WAY_1: Row = Row { id: "quic-1", name: "bare QUIC, echo, 1 under way" };

/// One round.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    let json = bench(plan, 1, "floor", &["--connections", "100", "--window", "16,1"]).await?;
    for (row, window) in [(UNDER_WAY_16, 16), (UNDER_WAY_1, 1)] {
        let report = Report::new("throughput", row.name)
            .number("echoes/s", "per_second", figure(&json, &format!("echoes_per_second_{window}"))?)
            .number("server CPU, s/100k", "cpu_s_per_100k", figure(&json, &format!("cpu_s_per_100k_{window}"))?);
        results.add(plan, row, &report.detail("rove_bench", json.clone()));
        results.fsync(row, Some("stores nothing".to_owned()));
    }
    // It goes on as long as its stdin is open: it ends with this program, whatever happens.
    let mut server = Command::new(beside("rove-bench")?)
        .arg("echo-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the echo server")?;
    let pid = server.id().context("the echo server is gone")?;
    let (at, pin) = listening(&mut server).await.context("the echo server does not listen")?;
    let dialer = EchoDialer::new(at, pin)?;
    let fresh = async |_| Ok(dialer.connect_first().await?);
    let what = UNDER_WAY_16.name;
    results.add(plan, UNDER_WAY_16, &work::connections(plan, what, fresh, pid).await?);
    let open = async |_| Ok(dialer.connect().await?);
    results.add(plan, UNDER_WAY_16, &work::idle(what, open, pid).await?);
    server.kill().await.context("ending the echo server")
}
