//! How a command ends that did not do what it was told.

use std::process::ExitCode;

use rove_client::Error;
use rove_client::registry::ErrorCode;

use crate::explain;

/// What `--help` says of exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, or (replay, demo) what had to hold did not
  2  wrong arguments
  3  not logged in, or the server does not accept the handle, the password or the device
  4  the server could not be reached, or did not answer in time
  5  the server refused";

/// A message for the user, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// It failed, for a reason that is neither the arguments' nor the server's.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// Standard output failed. That its reader has enough is not worth a message.
    #[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
    pub fn output(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { message: String::new(), code: 1 };
        }
        Self::failed(format!("standard output: {error}"))
    }

    /// The arguments make no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// The server did not answer in time.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 4 }
    }

    /// The server refused for this reason.
    pub fn refused(code: ErrorCode) -> Self {
        Self { message: format!("the server refused: {} ({code})", explain::code(code)), code: 5 }
    }

    /// The same, and what it was about.
    #[must_use]
    pub fn prefixed(self, about: &str) -> Self {
        Self { message: format!("{about}: {}", self.message), ..self }
    }

    /// Says so on standard error.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("rove: {}", self.message);
        }
        ExitCode::from(self.code)
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::InvalidArgument(_) | Error::Address(_) => 2,
            Error::NotLoggedIn | Error::Tls(_) => 3,
            Error::Server { code, .. } | Error::Closed(code) => match *code {
                ErrorCode::Unauthenticated | ErrorCode::Revoked => 3,
                ErrorCode::Unavailable | ErrorCode::GoingAway | ErrorCode::Timeout => 4,
                ErrorCode::None => 1,
                _ => 5,
            },
            Error::Transport(_) | Error::Timeout(_) => 4,
            Error::NotFound(_) | Error::TooLong { .. } => 5,
            Error::OutboxFull { .. }
            | Error::AlreadyLoggedIn
            | Error::StoreLocked
            | Error::StoreVersion { .. }
            | Error::Store(_)
            | Error::Violation(_)
            | Error::Socket(_) => 1,
        };
        Self { message: explain::error(&error), code }
    }
}

impl From<crate::ui::UiError> for Failure {
    fn from(error: crate::ui::UiError) -> Self {
        match error {
            crate::ui::UiError::Client(error) => error.into(),
            crate::ui::UiError::Terminal(error) => {
                Self::failed(format!("{error}: `rove open` needs a terminal; `rove tail` and `rove send` do not"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_whose_fault_it_is() {
        let code = |error: Error| Failure::from(error).exit_code();
        let server = |code| Error::Server { code, message: "sign up".into(), retry_after_ms: 0 };
        assert_eq!(code(Error::NotLoggedIn), 3);
        assert_eq!(code(server(ErrorCode::Unauthenticated)), 3);
        assert_eq!(code(Error::Timeout("sign up")), 4);
        assert_eq!(code(server(ErrorCode::NameTaken)), 5);
        assert_eq!(code(Error::StoreLocked), 1);
        assert_eq!(code(Error::Address("no host".into())), 2);
    }

    #[test]
    fn messages_say_what_to_do() {
        assert!(Failure::from(Error::NotLoggedIn).to_string().contains("rove log-in"));
        assert!(Failure::from(Error::StoreLocked).to_string().contains("--profile DIR"));
        assert!(Failure::refused(ErrorCode::Forbidden).to_string().contains("not a member"));
    }
}
