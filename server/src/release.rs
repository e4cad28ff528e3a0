//! What one release of the program differs in from the next, as far as nodes of both may be in one cluster.

use rove_core::apply_version::ApplyVersions;

/// A release. Tests make programs of other ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Its name, for people; at most 64 bytes.
    pub version: &'static str,
    /// The versions of apply that it has.
    pub applies: ApplyVersions,
    /// The lowest and the highest version of the protocol between nodes that it speaks.
    pub speaks: (u32, u32),
}

impl Release {
    /// This program.
    pub const THIS: Self =
        Self { version: env!("CARGO_PKG_VERSION"), applies: ApplyVersions::THIS, speaks: crate::cluster::VERSIONS };
}
