//! The `rove-server` binary.

fn main() -> std::process::ExitCode {
    rove_server::cli::main()
}
