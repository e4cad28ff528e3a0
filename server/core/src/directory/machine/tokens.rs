//! Refresh rotation.
//!
//! A refresh token is good for one exchange. When a used one is shown again, either its reply was lost or somebody has
//! a copy; which of the two cannot be told, except that a lost reply leaves its successor unused and the repeat comes
//! soon. Then the successor nobody received is retired and another one given. In every other case the whole family
//! ends, the thief's part of it too, and the owner signs in again.

use rove_protocol::registry::ErrorCode;

use super::Step;
use crate::directory::REFRESH_GRACE_MS;
use crate::directory::command::{DirectoryOutcome, NewToken};
use crate::directory::error::DirectoryError;
use crate::directory::rows::{AccessTokenRow, Digest, RefreshTokenRow};
use crate::directory::store::{DirectoryRead, DirectoryTx};

impl<T: DirectoryTx + ?Sized> Step<'_, T> {
    pub(super) fn rotate(
        &mut self,
        presented: &Digest,
        access: &NewToken,
        refresh: &NewToken,
    ) -> Result<DirectoryOutcome, DirectoryError> {
        let now = self.meta.time_ms;
        let Some(mut row) = self.tx.refresh_token(presented)? else {
            return Ok(DirectoryOutcome::Failed(ErrorCode::Unauthenticated));
        };
        if let Err(code) = self.active(row.account, row.device)? {
            return Ok(DirectoryOutcome::Failed(code));
        }
        if row.expires_ms <= now {
            return Ok(DirectoryOutcome::Failed(ErrorCode::Unauthenticated));
        }
        if let Some(used_ms) = row.used_ms
            && !self.retire_lost(&row, used_ms)?
        {
            self.tx.remove_family(row.family)?;
            return Ok(DirectoryOutcome::Failed(ErrorCode::Unauthenticated));
        }
        row.used_ms = Some(row.used_ms.unwrap_or(now));
        row.successor = Some(refresh.token);
        self.tx.put_refresh_token(&row)?;
        self.tx.put_access_token(&AccessTokenRow {
            token: access.token,
            account: row.account,
            device: row.device,
            family: row.family,
            expires_ms: now.saturating_add(access.lifetime_ms),
        })?;
        self.tx.put_refresh_token(&RefreshTokenRow {
            token: refresh.token,
            account: row.account,
            device: row.device,
            family: row.family,
            expires_ms: now.saturating_add(refresh.lifetime_ms),
            used_ms: None,
            successor: None,
        })?;
        Ok(DirectoryOutcome::Refreshed { account: row.account, device: row.device })
    }

    /// Whether the second use of `row` can be a lost reply; its successor is then retired: shown later, it ends the
    /// family like any token used twice.
    fn retire_lost(&mut self, row: &RefreshTokenRow, used_ms: u64) -> Result<bool, DirectoryError> {
        let now = self.meta.time_ms;
        if now.saturating_sub(used_ms) > REFRESH_GRACE_MS {
            return Ok(false);
        }
        let Some(successor) = row.successor else { return Ok(false) };
        let Some(mut successor) = self.tx.refresh_token(&successor)?.filter(|next| next.used_ms.is_none()) else {
            return Ok(false);
        };
        successor.used_ms = Some(now);
        self.tx.put_refresh_token(&successor)?;
        Ok(true)
    }
}
