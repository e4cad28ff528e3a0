//! The subcommands, one file each (or one for a few that belong together).

pub mod account;
pub mod args;
pub mod chat;
pub mod error;
pub mod history;
pub mod list;
pub mod output;
pub mod password;
pub mod profile;
pub mod send;
pub mod tail;
pub mod target;

use std::process::ExitCode;

use args::{Cli, Command};
use error::Failure;

/// Runs one command; the exit code says how it went.
pub async fn run(cli: Cli) -> ExitCode {
    let at = cli.profile.as_deref();
    let outcome = match cli.command {
        Command::SignUp(args) => account::sign_up(at, args).await,
        Command::LogIn(args) => account::log_in(at, args).await,
        Command::LogOut => account::log_out(at).await,
        Command::List(args) => list::run(at, &args).await,
        Command::Open(args) => chat::run(at, args).await,
        Command::NewGroup(args) => list::new_group(at, &args).await,
        Command::Send(args) => send::run(at, args).await,
        Command::Tail(args) => tail::run(at, args).await,
        Command::History(args) => history::run(at, args).await,
        Command::Replay(args) => return crate::replay::run(args).await,
        Command::Demo(args) => {
            return match Box::pin(crate::demo::run(args)).await {
                Ok(code) => code,
                Err(error) => Failure::failed(error.to_string()).report(),
            };
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
