//! What networks do.

use std::time::Duration;

use unstale::sandbox::Proxy;

use crate::stage::Stage;
use crate::what::{Trouble, Way};

/// How much later a chunk of bytes comes on a slow way.
const SLOW: Duration = Duration::from_millis(40);

impl Stage {
    pub(super) async fn trouble(&self, way: Way, trouble: Trouble, lasts: Duration) {
        let proxy: &Proxy = match way {
            Way::ToRedis => &self.to_redis,
            Way::ToPostgres => &self.to_postgres,
        };
        match trouble {
            Trouble::Cut => return proxy.cut(),
            Trouble::Slow => proxy.delay(SLOW),
            Trouble::Silent => proxy.pause(),
            Trouble::AnswersLost => proxy.lose_answers(),
            Trouble::Refused => {
                proxy.refuse().await;
                proxy.cut();
            }
        }
        tokio::time::sleep(lasts).await;
        if trouble == Trouble::AnswersLost {
            proxy.cut();
        }
        proxy.resume().await;
    }
}
