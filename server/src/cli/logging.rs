//! Where log lines go: standard error.

use tracing_subscriber::EnvFilter;

use super::config::{ConfigError, LogFormat};

/// Starts logging.
///
/// # Errors
/// `log_level` is neither a level nor directives.
pub(super) fn start(format: LogFormat, level: &str) -> Result<(), ConfigError> {
    let filter = EnvFilter::builder().parse(level).map_err(|error| ConfigError::Value {
        key: "log_level",
        value: level.to_owned(),
        advice: format!("{error}; use error, warn, info, debug or trace, or directives such as info,rove_server=debug"),
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only if logging was started before, by a test.
    let _ = match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_names_the_key() {
        let message = start(LogFormat::Text, "rove=loud").unwrap_err().to_string();
        assert!(message.starts_with("log_level = rove=loud"), "{message}");
    }
}
