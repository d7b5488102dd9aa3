//! A fill that has begun comes to its end, whatever becomes of those who asked for it.
//!
//! Workers end with the run of the pipeline, at any moment. Cut off after it took its lease, a
//! fill would keep everybody else from filling that entry until the lease expires. So each
//! is a task of its own; that it goes on is safe, as every fill by lease is.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::fill::filler::{Filler, How, ReadError};
use crate::mapping::model::CacheId;

/// Fills to the end. Cloning shares what is under way.
#[derive(Clone)]
pub struct Filling {
    filler: Arc<Filler>,
    under_way: TaskTracker,
}

impl Filling {
    /// Fills in this way.
    #[must_use]
    pub fn new(filler: Filler) -> Self {
        Filling { filler: Arc::new(filler), under_way: TaskTracker::new() }
    }

    /// See [`Filler::warm`].
    ///
    /// # Errors
    /// As [`Filler::warm`].
    pub async fn warm(
        &self,
        cache: CacheId,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) -> Result<How, ReadError> {
        let (filler, values) = (Arc::clone(&self.filler), owned(values));
        self.to_its_end(async move { filler.warm(cache, &borrowed(&values), remaining).await })
            .await
    }

    /// See [`Filler::refresh`].
    ///
    /// # Errors
    /// As [`Filler::refresh`].
    pub async fn refresh(
        &self,
        cache: CacheId,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) -> Result<How, ReadError> {
        let (filler, values) = (Arc::clone(&self.filler), owned(values));
        self.to_its_end(async move { filler.refresh(cache, &borrowed(&values), remaining).await })
            .await
    }

    async fn to_its_end(
        &self,
        fill: impl Future<Output = Result<How, ReadError>> + Send + 'static,
    ) -> Result<How, ReadError> {
        self.under_way.spawn(Box::pin(fill)).await.unwrap_or(Err(ReadError::Abandoned))
    }

    /// Waits for what is under way, for so long at the most.
    pub async fn finished(&self, within: Duration) {
        self.under_way.close();
        _ = tokio::time::timeout(within, self.under_way.wait()).await;
    }
}

fn owned(values: &[(&str, &str)]) -> Vec<(String, String)> {
    values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn borrowed(values: &[(String, String)]) -> Vec<(&str, &str)> {
    values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
