//! `rove open`.

use std::io::IsTerminal as _;
use std::path::Path;

use super::args::OpenArgs;
use super::error::Failure;
use super::{profile, target};
use crate::ui::state::Glyphs;
use crate::ui::{self, Look};

/// Chats in the terminal.
///
/// # Errors
/// See [`Failure`].
pub async fn run(at: Option<&Path>, args: OpenArgs) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("`rove open` needs a terminal; `rove tail` and `rove send` do not"));
    }
    let client = profile::open(at).await?;
    let first = match &args.target {
        Some(target) => Some(target::find(&client, target).await?),
        None => None,
    };
    let mut look = Look::from_environment();
    if args.plain {
        look.glyphs = Glyphs::Plain;
    }
    let chatted = ui::run_with(client.clone(), first, look).await;
    client.close().await;
    Ok(chatted?)
}
