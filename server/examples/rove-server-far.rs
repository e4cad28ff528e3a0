//! The `rove-server` of a far day, for tests: other nodes of today have no version of the protocol between nodes in common with it.

use rove_server::release::Release;

fn main() -> std::process::ExitCode {
    let this = Release::THIS;
    let (_, newest) = this.speaks;
    rove_server::cli::main_as(Release { version: "0.1.0-far", speaks: (newest + 1, newest + 2), ..this })
}
