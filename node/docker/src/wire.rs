//! What we read of the Engine API's JSON; everything else in it is ignored.
//!
//! Only what bollard lacks or is stricter about than engines are. A missing or
//! null field takes its default; what must be there is checked in `convert`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Go prints an empty map or slice as null.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares structs whose every field may be missing or null.
macro_rules! objects {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub(crate) struct $name {
            $(
                #[serde(deserialize_with = "or_default")]
                $(#[$attribute])*
                pub(crate) $field: $type,
            )*
        }
    )*};
}

objects! {
    Version { index: u64 }

    Network {
        id: String,
        name: String,
        ingress: bool,
    }

    Node {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        spec: NodeSpec,
        description: NodeDescription,
        status: NodeStatus,
        manager_status: ManagerStatus,
    }
    NodeSpec { availability: String, labels: BTreeMap<String, String> }
    NodeDescription { hostname: String }
    NodeStatus { state: String, addr: String }
    ManagerStatus { addr: String }

    Service {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        created_at: String,
        spec: ServiceSpec,
        endpoint: Endpoint,
        update_status: UpdateStatus,
    }
    ServiceSpec {
        name: String,
        labels: BTreeMap<String, String>,
        task_template: TaskTemplate,
        /// Where engines kept networks before they moved to the task's template.
        networks: Vec<Attachment>,
        mode: Mode,
        endpoint_spec: EndpointSpec,
    }
    TaskTemplate { networks: Vec<Attachment> }
    Attachment { target: String }
    Mode {
        replicated: Option<Replicated>,
        global: Option<Value>,
        replicated_job: Option<Value>,
        global_job: Option<Value>,
    }
    Replicated { replicas: Option<u64> }
    EndpointSpec { mode: String, ports: Vec<Port> }
    Endpoint {
        spec: EndpointSpec,
        ports: Vec<Port>,
        #[serde(rename = "VirtualIPs")]
        virtual_ips: Vec<VirtualIp>,
    }
    VirtualIp {
        #[serde(rename = "NetworkID")]
        network_id: String,
        addr: String,
    }
    Port {
        protocol: String,
        target_port: u16,
        published_port: u16,
        publish_mode: String,
    }
    UpdateStatus { state: String }

    Task {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        #[serde(rename = "ServiceID")]
        service_id: String,
        slot: u64,
        #[serde(rename = "NodeID")]
        node_id: String,
        desired_state: String,
        status: TaskStatus,
        networks_attachments: Vec<TaskAttachment>,
    }
    TaskStatus { state: String, port_status: PortStatus }
    PortStatus { ports: Vec<Port> }
    TaskAttachment { network: TaskNetwork, addresses: Vec<String> }
    TaskNetwork {
        #[serde(rename = "ID")]
        id: String,
    }

    Named {
        #[serde(rename = "ID")]
        id: String,
        spec: NamedSpec,
    }
    NamedSpec { name: String }
}

/// An object that says which it is.
pub(crate) trait Identified {
    fn id(&self) -> &str;
}

macro_rules! identified {
    ($($name:ident)*) => {$(
        impl Identified for $name {
            fn id(&self) -> &str {
                &self.id
            }
        }
    )*};
}

identified! { Network Node Service Task Named }
