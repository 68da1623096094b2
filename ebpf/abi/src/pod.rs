//! Keys and values as plain data for aya.

use crate::{
    AddrKey, Backend, Config, DeviceEntry, EndpointEntry, Event, EventBudget, FlowImage, FlowKey4, FlowKey6, FragKey4,
    FragKey6, FragValue, IpcacheEntry, Metric, NatImage4, NatImage6, NatKey4, NatKey6, NodeEntry, OwnedPrefix,
    PolicyEntry, PolicyKey, ServiceEntry, ServiceKey, SocketEntry, SocketKey,
};

macro_rules! pod {
    ($($ty:ty),* $(,)?) => { $(
        // SAFETY: `repr(C)`, numbers only, and the size assertions beside the type leave no room for hidden padding.
        unsafe impl aya::Pod for $ty {}
    )* };
}

pod!(
    AddrKey,
    Backend,
    Config,
    DeviceEntry,
    EndpointEntry,
    Event,
    EventBudget,
    FlowImage,
    FlowKey4,
    FlowKey6,
    FragKey4,
    FragKey6,
    FragValue,
    IpcacheEntry,
    Metric,
    NatImage4,
    NatImage6,
    NatKey4,
    NatKey6,
    NodeEntry,
    OwnedPrefix,
    PolicyEntry,
    PolicyKey,
    ServiceEntry,
    ServiceKey,
    SocketEntry,
    SocketKey,
);
