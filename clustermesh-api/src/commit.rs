//! Compare-and-swap: read the view, decide, write on condition that nothing moved; when something did, decide again.

use std::time::Duration;

use fabric_core::error_code as codes;
use tonic::Code;

use crate::failure::Failure;
use crate::store::{Outcome, Store, Transaction, View};

/// How often somebody else may be quicker.
const TRIES: u32 = 32;
/// How long our own view may lag behind our own write.
const VIEW_LAG: Duration = Duration::from_secs(5);

/// What a decision wants written, and what its caller gets when it was.
#[derive(Debug)]
pub struct Plan<T> {
    /// Conditions and writes; without writes nothing is sent.
    pub transaction: Transaction,
    /// The result.
    pub value: T,
}

impl<T> Plan<T> {
    /// Everything is as it should be.
    pub fn nothing(value: T) -> Self {
        Self { transaction: Transaction::new(), value }
    }
}

/// What was written, at which revision.
#[derive(Debug)]
pub struct Committed<T> {
    /// The decision's result.
    pub value: T,
    /// The store's revision that holds it; the view has reached it.
    pub revision: i64,
    /// Whether anything was written.
    pub changed: bool,
}

/// Decides and writes until nobody was quicker. `decide` sees the newest view each time and has no effects of its own.
///
/// # Errors
/// What `decide` says; the store's errors; contention that does not end.
pub async fn commit<T>(
    store: &Store,
    view: &View,
    mut decide: impl FnMut(&View) -> Result<Plan<T>, Failure> + Send,
) -> Result<Committed<T>, Failure> {
    for _ in 0..TRIES {
        let Plan { transaction, value } = decide(view)?;
        if transaction.is_empty() {
            return Ok(Committed { value, revision: view.status().header.revision, changed: false });
        }
        let (revision, done) = match store.transact(transaction).await? {
            Outcome::Done { revision } => (revision, true),
            Outcome::Conflict { revision, .. } => (revision, false),
        };
        // Readers of this process, the next decision first of all, must see the store as it was when it answered.
        let caught_up = tokio::time::timeout(VIEW_LAG, view.reached(revision)).await.is_ok();
        if done {
            return Ok(Committed { value, revision, changed: true });
        }
        if !caught_up {
            break;
        }
    }
    Err(Failure::new(codes::STORE_UNAVAILABLE, Code::Aborted, "others keep changing the same keys; try again"))
}
