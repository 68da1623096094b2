//! Which nodes there are to ask, kept in step with the rows that agents see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::node::{Node, Target};
use crate::api::SharedApi;

/// At most so often the nodes are looked through, however often the store changes.
const SETTLE: Duration = Duration::from_millis(250);
/// At least so often, for a renewed certificate of our own.
const LOOK: Duration = Duration::from_mins(1);

/// All nodes by name.
pub(super) type Nodes = Arc<BTreeMap<String, Arc<Node>>>;

/// The nodes of this cluster. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    api: SharedApi,
    nodes: Arc<watch::Sender<Nodes>>,
}

impl Directory {
    /// An empty one.
    pub(super) fn new(api: SharedApi) -> Self {
        Self { api, nodes: Arc::new(watch::channel(Nodes::default()).0) }
    }

    /// The nodes as they are now.
    pub(super) fn nodes(&self) -> Nodes {
        Arc::clone(&self.nodes.borrow())
    }

    /// The nodes and their changes.
    pub(super) fn changes(&self) -> watch::Receiver<Nodes> {
        self.nodes.subscribe()
    }

    /// Follows the rows, for ever. A node that goes takes its connection with it.
    pub(super) async fn keep(&self) {
        let mut rows = self.api.rows.positions();
        loop {
            rows.borrow_and_update();
            self.refresh();
            sleep(SETTLE).await;
            tokio::select! {
                // Cannot fail: the table that is held here holds the sender.
                _ = rows.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    fn refresh(&self) {
        let leaf = self.api.leaf.load_full();
        let known = self.nodes();
        let mut nodes = BTreeMap::new();
        for row in self.api.rows.nodes_of(self.api.cluster.name.as_str()) {
            let Some(target) = Target::of(&row) else { continue };
            let node = match known.get(&target.name) {
                Some(node) if *node.target() == target => node.use_leaf(&self.api, &leaf).map(|()| Arc::clone(node)),
                _ => Node::new(&self.api, target, &leaf).map(Arc::new),
            };
            match node {
                Ok(node) => {
                    nodes.insert(node.name().to_owned(), node);
                }
                Err(error) => {
                    tracing::warn!(node = row.name, %error, "our certificate cannot be used for the observer");
                }
            }
        }
        self.nodes.send_if_modified(|now| {
            let same = now.len() == nodes.len() && now.values().zip(nodes.values()).all(|(a, b)| Arc::ptr_eq(a, b));
            if !same {
                *now = Arc::new(nodes);
            }
            !same
        });
    }
}
