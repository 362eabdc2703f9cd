//! What a store under faults must look like from above `Retrying`: lost answers, 409, 412 and throttling end in the truth or in `Unknown`.
//! Neighbours: `retry`, `memory::fault`. Invariant: 1. whatever is reported as a success or as a failure is what the store holds.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    ids::SeededIds,
    item::{Attr, Item, ItemCondition, ItemError, ItemStore},
    memory::{Fault, FaultPlan, Faulty, ManualClock},
    object::{ObjectErrorKind, ObjectStore, PutMode},
    retry::{Retry, RetryPolicy, Retrying},
};

/// Faults after which an operation may be sent again.
const TRANSIENT: [Fault; 5] =
    [Fault::Throttle, Fault::Conflict, Fault::Unavailable, Fault::LoseRequest, Fault::LoseAnswer];

fn over<S: Clone>(store: &S, plan: FaultPlan) -> Retrying<Faulty<S>> {
    let retry = Retry::new(RetryPolicy::default(), Arc::new(ManualClock::new(0)), Arc::new(SeededIds::new(7)));
    Retrying::new(Faulty::new(store.clone(), plan), retry)
}

/// Conditional puts under every transient fault, alone and against another writer.
pub async fn objects(store: Arc<dyn ObjectStore>) {
    for (n, fault) in TRANSIENT.into_iter().enumerate() {
        let (mine, theirs) = (Bytes::from(format!("mine {n}")), Bytes::from(format!("theirs {n}")));
        let plan = || FaultPlan::none().on("put", "contract/fault", 1, fault);

        let key = format!("contract/fault/alone/{n}");
        let tag = over(&store, plan()).put(&key, mine.clone(), PutMode::IfAbsent).await.expect("alone");
        assert_eq!(store.head(&key).await.unwrap().etag, tag, "{fault:?}");
        let next = over(&store, plan()).put(&key, theirs.clone(), PutMode::IfMatch(tag)).await.expect("if match");
        assert_eq!(store.head(&key).await.unwrap().etag, next, "{fault:?}");

        let key = format!("contract/fault/raced/{n}");
        let (other, raced, content) = (store.clone(), key.clone(), theirs.clone());
        let plan = plan().act_before("put", "contract/fault", 2, move || async move {
            drop(other.put(&raced, content, PutMode::IfAbsent).await);
        });
        let result = over(&store, plan).put(&key, mine.clone(), PutMode::IfAbsent).await.map_err(|e| e.kind());
        let now = store.get(&key).await.unwrap();
        match result {
            Ok(tag) => assert_eq!((now.bytes, now.meta.etag), (mine, tag), "{fault:?}"),
            Err(kind) => {
                assert_eq!(now.bytes, theirs, "{fault:?}");
                let certain = matches!(fault, Fault::Throttle | Fault::Unavailable);
                let want = if certain { ObjectErrorKind::PreconditionFailed } else { ObjectErrorKind::Unknown };
                assert_eq!(kind, want, "{fault:?}");
            }
        }
    }
}

/// Conditional item writes under every transient fault, alone and against another writer.
pub async fn items(store: Arc<dyn ItemStore>) {
    for (n, fault) in TRANSIENT.into_iter().enumerate() {
        let plan = || FaultPlan::none().on("put_item", "contract/fault", 1, fault);
        let item = |sort: &str, rev, by: &str| {
            Item::new("contract/fault", format!("{sort}-{n}"), rev).with("by", Attr::S(by.to_owned()))
        };

        let mine = item("alone", 1, "me");
        over(&store, plan()).put(&mine, ItemCondition::Absent).await.expect("alone");
        assert_eq!(store.get("contract/fault", &mine.sort).await.unwrap().as_ref(), Some(&mine), "{fault:?}");

        let (mine, theirs) = (item("raced", 1, "me"), item("raced", 1, "them"));
        let (other, content) = (store.clone(), theirs.clone());
        let plan = plan().act_before("put_item", "contract/fault", 2, move || async move {
            drop(other.put(&content, ItemCondition::Absent).await);
        });
        let result = over(&store, plan).put(&mine, ItemCondition::Absent).await;
        let now = store.get("contract/fault", &mine.sort).await.unwrap().unwrap();
        match result {
            Ok(()) => assert_eq!(now, mine, "{fault:?}"),
            Err(ItemError::ConditionFailed { current, .. }) => {
                assert_eq!((current.as_ref(), &now), (Some(&theirs), &theirs), "{fault:?}");
                assert_ne!(fault, Fault::LoseRequest, "a lost request leaves doubt");
            }
            Err(ItemError::Unknown(_)) => assert_eq!((fault, &now), (Fault::LoseRequest, &theirs)),
            Err(error) => panic!("{fault:?} gave {error}"),
        }
    }
}
