//! Asks for a password without showing it.

use std::io::{self, IsTerminal as _, Write as _, stderr, stdin};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use super::error::Failure;

/// The variable that may hold it.
const VARIABLE: &str = "ROVE_PASSWORD";

/// From standard input, the environment, or the user; the user is asked twice if it is a new one.
///
/// # Errors
/// There is none, or the two differ.
pub fn get(from_stdin: bool, new: bool) -> Result<String, Failure> {
    if from_stdin {
        return first_line(stdin().lock());
    }
    if let Ok(password) = std::env::var(VARIABLE)
        && !password.is_empty()
    {
        return Ok(password);
    }
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::usage(format!(
            "there is no terminal to ask for the password on: set {VARIABLE}, or give it with --password-stdin"
        )));
    }
    let failed = |error: io::Error| Failure::failed(format!("asking for the password: {error}"));
    let password = ask("Password: ").map_err(failed)?;
    if new && ask("Once more: ").map_err(failed)? != password {
        return Err(Failure::usage("the two passwords differ: nothing was done"));
    }
    Ok(password)
}

fn first_line(mut input: impl io::BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| Failure::usage(format!("the password on standard input: {error}")))?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(Failure::usage("there is no password on standard input"));
    }
    Ok(password.to_owned())
}

/// Raw mode, given back whatever happens.
struct Raw;

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = disable_raw_mode();
        eprintln!();
    }
}

fn ask(prompt: &str) -> io::Result<String> {
    eprint!("{prompt}");
    stderr().flush()?;
    enable_raw_mode()?;
    let _raw = Raw;
    let mut password = String::new();
    loop {
        let Event::Key(key) = read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Enter => return Ok(password),
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => password.clear(),
            KeyCode::Char(character) => password.push(character),
            KeyCode::Backspace => drop(password.pop()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password_to_the_last_space() {
        assert_eq!(first_line(&b"correct horse \r\nmore"[..]).unwrap(), "correct horse ");
        assert_eq!(first_line(&b"no newline"[..]).unwrap(), "no newline");
        assert_eq!(first_line(&b"\n"[..]).unwrap_err().exit_code(), 2);
    }
}
