//! Keys that end, and are asked for again before they do.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tidegate_common::clock;

use super::s3::S3;

/// Milliseconds before their end from which keys are no longer used.
const MARGIN: i64 = 60_000;

/// Whoever hands out keys of a store.
#[async_trait]
pub(crate) trait Renew: Debug + Send + Sync {
    /// Asks for keys that hold; the error says why there are none.
    async fn renew(&self) -> Result<S3, String>;
}

/// Keys as they are now.
#[derive(Debug)]
pub(super) struct Keyring {
    held: Mutex<(Arc<AwsCredential>, Option<i64>)>,
    from: Arc<dyn Renew>,
}

impl Keyring {
    /// A keyring with the keys of `s3`, filled again by `from`; `None` where its keys have no end.
    pub(super) fn of(s3: &S3, from: Arc<dyn Renew>) -> Option<Self> {
        let (keys, until) = s3.given().filter(|(_, until)| until.is_some())?;
        Some(Self { held: Mutex::new((Arc::new(keys), until)), from })
    }
}

#[async_trait]
impl CredentialProvider for Keyring {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (keys, until) = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = clock::processing_time_micros() / 1_000;
        if until.is_none_or(|until| now < until - MARGIN) {
            return Ok(keys);
        }
        let none = |why: String| object_store::Error::Generic { store: "S3", source: why.into() };
        let given = self.from.renew().await.map_err(none)?.given();
        let (keys, until) = given.ok_or_else(|| none("the catalog hands out no keys any more".to_owned()))?;
        let held = (Arc::new(keys), until);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held.clone();
        Ok(held.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// Hands out the key `n` with the n-th end of a list.
    #[derive(Debug)]
    struct Hands(AtomicI64, Vec<i64>);

    impl Hands {
        fn next(&self) -> S3 {
            let at = self.0.fetch_add(1, Ordering::SeqCst);
            let until = self.1[usize::try_from(at).unwrap()].to_string();
            let properties = [
                ("s3.access-key-id", at.to_string()),
                ("s3.secret-access-key", "secret".to_owned()),
                ("s3.session-token-expires-at-ms", until),
            ];
            let properties: HashMap<_, _> = properties.map(|(key, value)| (key.to_owned(), value)).into();
            S3::default().with_properties(&properties).unwrap()
        }
    }

    #[async_trait]
    impl Renew for Hands {
        async fn renew(&self) -> Result<S3, String> {
            Ok(self.next())
        }
    }

    #[tokio::test]
    async fn keys_are_used_until_shortly_before_their_end_and_then_asked_for_again() {
        let now = clock::processing_time_micros() / 1_000;
        let hands = Arc::new(Hands(AtomicI64::new(0), vec![now + MARGIN - 1, now + MARGIN - 1, now + 10 * MARGIN]));
        let ring = Keyring::of(&hands.next(), hands.clone()).unwrap();
        let mut used = Vec::new();
        for _ in 0..4 {
            used.push(ring.get_credential().await.unwrap().key_id.clone());
        }
        assert_eq!(used, ["1", "2", "2", "2"]);
        assert!(Keyring::of(&S3::default(), hands).is_none());
    }
}
