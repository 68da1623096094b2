//! Splits an answer that is too large for one message, for clients that asked for it.

use clustermesh_api_proto::etcdserverpb::WatchResponse;
use prost::Message;

/// etcd's: the largest request (1.5 MiB) and what gRPC adds.
const LARGEST_BYTES: usize = 2 << 20;

/// The same events in answers of at most [`LARGEST_BYTES`], at least one each; all but the last say that more follows.
pub(super) fn fragments(whole: WatchResponse) -> Vec<WatchResponse> {
    if whole.events.len() < 2 || whole.encoded_len() < LARGEST_BYTES {
        return vec![whole];
    }
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..whole.clone() };
    let overhead = empty.encoded_len();
    let (mut answers, mut current, mut size) = (Vec::new(), empty.clone(), overhead);
    for event in whole.events {
        // Tag and length of the field: at most six bytes.
        let event_size = event.encoded_len() + 6;
        if !current.events.is_empty() && size + event_size >= LARGEST_BYTES {
            answers.push(std::mem::replace(&mut current, empty.clone()));
            size = overhead;
        }
        size += event_size;
        current.events.push(event);
    }
    current.fragment = false;
    answers.push(current);
    answers
}

#[cfg(test)]
mod tests {
    use clustermesh_api_proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn whole(events: usize, size: usize) -> WatchResponse {
        let event = |index: usize| {
            let kv = KeyValue { key: format!("{index}").into(), value: vec![0; size].into(), ..KeyValue::default() };
            Event { kv: Some(kv), ..Event::default() }
        };
        WatchResponse { watch_id: 4, events: (0..events).map(event).collect(), ..WatchResponse::default() }
    }

    #[test]
    fn pieces_hold_the_same_events_in_order() {
        for (events, size) in [(0, 0), (1, 3 << 20), (2, 3 << 20), (7, 600_000), (5000, 1000)] {
            let whole = whole(events, size);
            let pieces = fragments(whole.clone());
            let (last, others) = pieces.split_last().unwrap();
            assert!(!last.fragment && others.iter().all(|piece| piece.fragment));
            assert!(pieces.iter().all(|piece| piece.events.len() <= 1 || piece.encoded_len() <= LARGEST_BYTES));
            let joined: Vec<Event> = pieces.iter().flat_map(|piece| piece.events.clone()).collect();
            assert_eq!(joined, whole.events);
            assert_eq!(pieces.len() > 1, events > 1 && events * size > LARGEST_BYTES);
        }
    }
}
