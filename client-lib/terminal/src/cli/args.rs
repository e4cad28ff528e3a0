//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rove_client::ServerAddress;

use super::error::EXIT_CODES;
use crate::demo::DemoArgs;
use crate::replay::ReplayArgs;

/// Chat in the terminal, and from scripts.
#[derive(Debug, Parser)]
#[command(name = "rove", version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Where the account and its messages are kept [default: $XDG_DATA_HOME/rove or ~/.local/share/rove]
    #[arg(long, global = true, value_name = "DIR", env = "ROVE_PROFILE")]
    pub profile: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an account, and log in with it
    #[command(after_help = "Examples:
  rove sign-up alice --server 'rove://localhost:7683?pin=…'
  pass show rove | rove sign-up alice --server rove://chat.example --password-stdin")]
    SignUp(LogInArgs),

    /// Log in, as one more device of the account
    #[command(after_help = "Examples:
  rove log-in alice --server rove://chat.example
  ROVE_PASSWORD=… rove --profile /tmp/second log-in alice --server rove://chat.example")]
    LogIn(LogInArgs),

    /// Log out: the server forgets this device, and the profile the account
    LogOut,

    /// List the conversations
    List(ListArgs),

    /// Chat, in the terminal
    #[command(
        visible_alias = "chat",
        after_help = "Examples:
  rove open              the list of conversations
  rove open bob          with bob, for the first time too
  rove open '#Lunch'     the group of that title

Messages carry ✓ when they are stored, ✓✓ when everybody has them, in colour when everybody has read them (plain: + ++ +r)."
    )]
    Open(OpenArgs),

    /// Make a group
    #[command(after_help = "Example:\n  rove new-group Lunch bob carla")]
    NewGroup(NewGroupArgs),

    /// Post one message, and wait until the server has stored it
    #[command(after_help = "Examples:
  rove send bob See you at noon
  make 2>&1 | tail -20 | rove send '#build' -
  rove send bob done --json | jq .seq
  rove send bob -- --text that begins with a hyphen")]
    Send(SendArgs),

    /// Print events as they come
    #[command(after_help = "Examples:
  rove tail bob                          what comes from now on
  rove tail bob --json --after 0         everything, one JSON object a line
  rove tail bob --json --after 17 --count 5

Each line is {\"type\":\"event\",…}, or {\"type\":\"unavailable\",\"from\",\"to\"} for seqs that will never be sent.
To go on where one left off, give the last seq to --after.")]
    Tail(TailArgs),

    /// Print past messages
    #[command(after_help = "Examples:
  rove history bob --limit 20
  rove history bob --before 300
  rove history '#Lunch' --since 2026-11-24 --json
  rove history '#Lunch' --since 2026-11-24T12:30")]
    History(HistoryArgs),

    /// Post IRC logs again with one real client per nick, and prove that all of them received the same
    #[command(after_help = "Examples:
  rove replay chat.txt --server 'rove://localhost:7683?pin=…'
  rove replay *.txt --server … --speed 60        an hour in a minute
  rove replay *.txt --server … --json | jq .ok

The exit code is 0 only if nothing was lost, doubled, altered or out of order.")]
    Replay(ReplayArgs),

    /// Start a server and two people, and chat
    Demo(DemoArgs),
}

/// Who, where.
#[derive(Debug, Args)]
pub struct LogInArgs {
    /// The account's handle
    pub handle: String,

    /// The server, as it printed it when it started
    #[arg(long, value_name = "rove://HOST:PORT?pin=…", env = "ROVE_SERVER")]
    pub server: ServerAddress,

    /// Read the password from standard input (the first line) [default: $ROVE_PASSWORD, or ask]
    #[arg(long)]
    pub password_stdin: bool,

    /// What this device is called in the account's list of devices
    #[arg(long, value_name = "NAME")]
    pub device_name: Option<String>,
}

/// How to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Seconds to wait for the server before listing what is known here
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub wait: u64,
}

/// What to open.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// A handle, a group's title (#TITLE if a handle is the same) or a conversation's id [default: the list]
    pub target: Option<String>,

    /// Signs of ASCII only [default: as the locale says]
    #[arg(long)]
    pub plain: bool,
}

/// What to make.
#[derive(Debug, Args)]
pub struct NewGroupArgs {
    /// What it is called
    pub title: String,

    /// Who is in it, beside you
    #[arg(value_name = "HANDLE")]
    pub handles: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What to say.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// A handle, a group's title (#TITLE) or a conversation's id
    pub target: String,

    /// The words; - reads them from standard input
    #[arg(required = true, value_name = "TEXT")]
    pub text: Vec<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Seconds to wait for the acknowledgement; after that the message stays queued in the profile
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
}

/// What to follow.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// A handle, a group's title (#TITLE) or a conversation's id
    pub target: String,

    /// One JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Begin after this seq; 0 begins with the first event [default: what comes from now on]
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,

    /// Stop after so many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// What to print.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// A handle, a group's title (#TITLE) or a conversation's id
    pub target: String,

    /// The last ones before this seq [default: the last ones]
    #[arg(long, value_name = "SEQ", conflicts_with = "since")]
    pub before: Option<u64>,

    /// The first ones since then: 2026-11-24, 2026-11-24T12:30 (local time) or with an offset or Z
    #[arg(long, value_name = "DATE")]
    pub since: Option<String>,

    /// How many events at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,

    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_follow_the_words_and_words_may_look_like_options() {
        let cli = Cli::try_parse_from(["rove", "send", "bob", "all", "done", "--json"]).unwrap();
        assert!(matches!(cli.command, Command::Send(args) if args.text == ["all", "done"] && args.json));
        let cli = Cli::try_parse_from(["rove", "send", "bob", "--", "--json"]).unwrap();
        assert!(matches!(cli.command, Command::Send(args) if args.text == ["--json"] && !args.json));
        let cli = Cli::try_parse_from(["rove", "send", "bob", "-"]).unwrap();
        assert!(matches!(cli.command, Command::Send(args) if args.text == ["-"]));
    }

    #[test]
    fn a_server_that_is_none_is_refused_with_the_reason() {
        let error = Cli::try_parse_from(["rove", "log-in", "alice", "--server", "http://x"]).unwrap_err();
        assert!(error.to_string().contains("rove://"), "{error}");
    }
}
