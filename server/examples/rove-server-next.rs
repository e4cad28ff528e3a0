//! The `rove-server` of a later day, for tests of upgrades: its apply has one version more, in which nothing is different.

use rove_core::apply_version::ApplyVersions;
use rove_server::release::Release;

fn main() -> std::process::ExitCode {
    let this = Release::THIS;
    let applies = ApplyVersions { highest: this.applies.highest + 1, ..this.applies };
    rove_server::cli::main_as(Release { version: "0.1.0-next", applies, ..this })
}
