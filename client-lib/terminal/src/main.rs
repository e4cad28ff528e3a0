//! The binary `rove`.

use std::process::ExitCode;

use clap::Parser as _;
use rove_terminal::cli::{self, args::Cli};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Silent unless asked: what users need to know is said in their words.
    if let Ok(filter) = EnvFilter::try_from_env("ROVE_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&format!("the runtime could not be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(cli::run(cli))
}

#[allow(clippy::print_stderr, reason = "a command line program answers on its standard streams")]
fn report(what: &str) {
    eprintln!("rove: {what}");
}
