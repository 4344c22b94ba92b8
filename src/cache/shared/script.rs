//! Scripts that Redis runs for others than the cache: on the same connections, behind the same breaker.

use std::time::Duration;

use deadpool_redis::redis::{RedisResult, Script, Value};

use super::{Shared, connect::Line, connect::Purpose};

impl Shared {
    /// Runs `script` on `key`; it is loaded where Redis does not know it. None when Redis is away, refuses, or does not answer within
    /// `budget`, nor within the timeout of lookups.
    ///
    /// # Cancel safety
    /// Whether it ran is not known.
    pub async fn run_script(&self, script: &Script, key: &str, arguments: &[u64], budget: Duration) -> Option<Value> {
        let mut share = self.link.share(Purpose::Reads)?;
        let asked = tokio::time::timeout(budget, invoke(&mut share.line, script, key, arguments)).await;
        let Ok(answer) = asked else {
            self.link.missed(Purpose::Reads, &share);
            return None;
        };
        self.link.settle(Purpose::Reads, &share, answer).ok()
    }
}

async fn invoke(line: &mut Line, script: &Script, key: &str, arguments: &[u64]) -> RedisResult<Value> {
    let mut call = script.prepare_invoke();
    call.key(key);
    for argument in arguments {
        call.arg(*argument);
    }
    match line {
        Line::Node(node) => call.invoke_async(node).await,
        Line::Cluster(cluster) => call.invoke_async(cluster).await,
    }
}
