//! The `rove-server` of a far day, for tests: other nodes of today have no version of the protocol between nodes in common with it.

use rove_core::apply_version::ApplyVersions;

fn main() -> std::process::ExitCode {
    let (_, newest) = rove_server::cluster::VERSIONS;
    rove_server::cli::main_with(ApplyVersions::THIS, (newest + 1, newest + 2))
}
