//! A timer that is as exact as the system's.
//!
//! tokio's own timers go in steps of a millisecond, which is longer than what is measured: posts would be late by half of one, and
//! the lateness would look like the server's. Linux has a timer that is a file and can be waited for like a socket, exact to some
//! 50 µs on a machine with a core to spare. Elsewhere tokio's has to do.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
pub(crate) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Timer;

/// Whether the time has come. If so, others get a turn: work that is always late must not keep the thread for itself.
async fn has_come(at: Instant) -> bool {
    let come = at <= Instant::now();
    if come {
        tokio::task::consume_budget().await;
    }
    come
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsFd as _, AsRawFd, RawFd};

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::io::unix::AsyncFd;

    use super::{Instant, has_come, io};

    #[derive(Debug)]
    pub(crate) struct Timer(AsyncFd<File>);

    #[derive(Debug)]
    struct File(TimerFd);

    impl AsRawFd for File {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }

    impl Timer {
        pub(crate) fn new() -> io::Result<Self> {
            // Both flags: reading must not block the thread, and the server that is started must not inherit it.
            let file = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            #[allow(
                deprecated,
                reason = "its heir is unsafe, for files that could be swapped: this one is owned and stays"
            )]
            Ok(Self(AsyncFd::new(File(file))?))
        }

        /// Waits until then. A system that takes its timer back leaves the rest to tokio's.
        pub(crate) async fn until(&mut self, at: Instant) {
            while !has_come(at).await {
                if self.wait(at).await.is_err() {
                    tokio::time::sleep_until(at.into()).await;
                }
            }
        }

        async fn wait(&mut self, at: Instant) -> io::Result<()> {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Which would switch the timer off.
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            self.0.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
            loop {
                let mut ready = self.0.readable().await?;
                if let Ok(rang) = ready.try_io(|file| file.get_ref().0.wait().map_err(io::Error::from)) {
                    return rang;
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Instant, has_come, io};

    #[derive(Debug)]
    pub(crate) struct Timer;

    impl Timer {
        // As the other one.
        #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn until(&mut self, at: Instant) {
            while !has_come(at).await {
                tokio::time::sleep_until(at.into()).await;
            }
        }
    }
}
