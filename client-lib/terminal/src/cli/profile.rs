//! The directory with the account and its messages.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rove_client::{Client, Options, StoreLocation};

use super::error::Failure;

/// The store's file in it.
const STORE: &str = "rove.db";
/// For the owner only: it holds the device's secret and every message.
const MODE: u32 = 0o700;

/// Where the profile is, if it is not said.
fn default_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("rove"))
}

/// The directory that was asked for, or the usual one.
///
/// # Errors
/// If there is no usual one.
pub fn dir(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    asked.map(Path::to_owned).or_else(default_dir).ok_or_else(|| {
        Failure::usage("neither XDG_DATA_HOME nor HOME is set: say where the profile is with --profile DIR")
    })
}

/// Makes the directory, for its owner only. One that is there must be empty or a profile: nothing else is made private,
/// or written to, by mistake.
///
/// # Errors
/// What is in the way, and what to do.
pub fn prepare(dir: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("the profile {}: {error}", dir.display()));
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(MODE).create(dir).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(mut entries) => {
            if entries.next().is_some() && !dir.join(STORE).exists() {
                return Err(Failure::usage(format!(
                    "{} has other things in it: choose an empty directory with --profile DIR",
                    dir.display()
                )));
            }
            fs::set_permissions(dir, fs::Permissions::from_mode(MODE)).map_err(failed)
        }
    }
}

/// The options of a client with the profile's store.
pub fn options(dir: &Path) -> Options {
    Options {
        name: concat!("rove ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Options::new(StoreLocation::File(dir.join(STORE)))
    }
}

/// The client of the profile.
///
/// # Errors
/// Nobody is logged in, or the store's fault.
pub async fn open(asked: Option<&Path>) -> Result<Client, Failure> {
    open_with(asked, |_| {}).await
}

/// Like [`open`], with options changed.
///
/// # Errors
/// Like [`open`].
pub async fn open_with(asked: Option<&Path>, change: impl FnOnce(&mut Options)) -> Result<Client, Failure> {
    let dir = dir(asked)?;
    // Without this, asking would make an empty store.
    if !dir.join(STORE).exists() {
        return Err(rove_client::Error::NotLoggedIn.into());
    }
    let mut options = options(&dir);
    change(&mut options);
    Ok(Client::open(options).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_profile_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let profile = dir.path().join("a/b");
        prepare(&profile).unwrap();
        assert_eq!(mode(&profile), 0o700);
        fs::set_permissions(&profile, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&profile).unwrap();
        assert_eq!(mode(&profile), 0o700);
        fs::write(profile.join(STORE), "").unwrap();
        prepare(&profile).unwrap();
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let failure = prepare(dir.path()).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(mode(dir.path()), 0o755);
    }

    #[tokio::test]
    async fn where_nobody_is_logged_in_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let failure = open(Some(&dir.path().join("none"))).await.unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(!dir.path().join("none").exists());
    }
}
