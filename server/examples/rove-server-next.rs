//! The `rove-server` of a later day, for tests of upgrades: its apply has one version more, in which nothing is different.

use rove_core::apply_version::ApplyVersions;

fn main() -> std::process::ExitCode {
    let this = ApplyVersions::THIS;
    rove_server::cli::main_with(ApplyVersions { highest: this.highest + 1, ..this }, rove_server::cluster::VERSIONS)
}
