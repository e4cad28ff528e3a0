//! `rove sign-up`, `rove log-in`, `rove log-out`.

use std::path::Path;

use rove_client::Client;

use super::args::LogInArgs;
use super::error::Failure;
use super::{password, profile};

/// Makes an account.
///
/// # Errors
/// See [`Failure`].
pub async fn sign_up(at: Option<&Path>, args: LogInArgs) -> Result<(), Failure> {
    enter(at, args, true).await
}

/// Adds this device to an account.
///
/// # Errors
/// See [`Failure`].
pub async fn log_in(at: Option<&Path>, args: LogInArgs) -> Result<(), Failure> {
    enter(at, args, false).await
}

async fn enter(at: Option<&Path>, args: LogInArgs, new: bool) -> Result<(), Failure> {
    let dir = profile::dir(at)?;
    profile::prepare(&dir)?;
    let password = password::get(args.password_stdin, new)?;
    let mut options = profile::options(&dir);
    options.device_name = args.device_name;
    let client = if new {
        Client::sign_up(&args.server, &args.handle, &password, options).await?
    } else {
        Client::log_in(&args.server, &args.handle, &password, options).await?
    };
    let what = if new { "signed up" } else { "logged in" };
    println!("{what} as {} (account {}, device {})", client.handle(), client.account(), client.device());
    client.close().await;
    Ok(())
}

/// Takes this device away.
///
/// # Errors
/// See [`Failure`].
pub async fn log_out(at: Option<&Path>) -> Result<(), Failure> {
    let client = profile::open(at).await?;
    let handle = client.handle().to_owned();
    client.log_out().await?;
    println!("logged out {handle}");
    Ok(())
}
