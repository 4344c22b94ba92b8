//! Removes all shared values, for administration.

use deadpool_redis::redis::{Cmd, Value, cmd, from_redis_value};

use super::{
    Away, Shared, Status,
    connect::{Primary, Purpose},
    held::Share,
    name,
};

/// Names in one step: Redis serves others between two steps, and a step of this size takes well under a millisecond.
const NAMES_AT_ONCE: usize = 500;

impl Shared {
    /// Removes every value and lease of this schema, in small steps beside other work. Returns how many there were. Values
    /// written meanwhile may stay.
    ///
    /// # Errors
    /// When Redis is away or a step fails; some values are removed then.
    ///
    /// # Cancel safety
    /// Safe: what is not removed yet stays.
    pub async fn clear(&self) -> Result<u64, Away> {
        let Some(mut share) = self.link.share(Purpose::Bulk) else {
            return Err(match self.status() {
                Status::Away { reason } => Away(reason),
                Status::Healthy { .. } => Away("no connection is open".to_owned()),
            });
        };
        let mut removed = 0;
        let primaries = share.line.primaries().await.map_err(|error| Away(error.to_string()))?;
        for primary in &primaries {
            removed += self.clear_primary(&mut share, primary).await?;
        }
        Ok(removed)
    }

    async fn clear_primary(&self, share: &mut Share, primary: &Primary) -> Result<u64, Away> {
        let pattern = format!("{}*", name::PREFIX);
        let (mut removed, mut cursor) = (0, 0_u64);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(NAMES_AT_ONCE);
            let answer = share.line.ask_primary(primary, scan).await;
            let found = self.link.settle(Purpose::Bulk, share, answer).map_err(|_| Away("a step failed".to_owned()))?;
            let (next, names): (u64, Vec<String>) = from_redis_value(found).map_err(|error| Away(error.to_string()))?;
            let unlinks: Vec<Cmd> = names.iter().map(Cmd::unlink).collect();
            let answers = share.line.ask_all(&unlinks).await;
            for answer in self.link.settle_all(share, answers) {
                removed += u64::from(matches!(answer, Ok(Value::Int(1..))));
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }
}
