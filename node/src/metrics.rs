//! Every name that the node counts under, and what it means.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Sessions that are signed in now.
pub const SESSIONS: &str = "magpie_node_sessions";
/// Connections that were accepted.
pub const CONNECTIONS: &str = "magpie_node_connections_total";
/// Connections that were closed because the device broke the protocol.
pub const PROTOCOL_ERRORS: &str = "magpie_node_protocol_errors_total";
/// Requests from devices.
pub const REQUESTS: &str = "magpie_node_requests_total";
/// Requests that were refused, by code.
pub const REFUSALS: &str = "magpie_node_refusals_total";
/// Hints handed to sessions.
pub const HINTS: &str = "magpie_node_hints_total";
/// Times that a shard's watches were registered again after a gap in its hints.
pub const HINT_REPAIRS: &str = "magpie_node_hint_repairs_total";
/// Hints that a slow session did not get: it was told to pull.
pub const HINTS_DROPPED: &str = "magpie_node_hints_dropped_total";
/// Actors of groups that run now.
pub const CONVERSATION_ACTORS: &str = "magpie_node_conversation_actors";
/// Passwords hashed.
pub const PASSWORDS_HASHED: &str = "magpie_node_passwords_hashed_total";
/// Requests refused because a limit was met, by limit.
pub const LIMITED: &str = "magpie_node_limited_total";
/// Requests turned away because more came than could be served.
pub const SHED: &str = "magpie_node_shed_total";
/// The last priority that is let in.
pub const ADMISSION_LEVEL: &str = "magpie_node_admission_level";
/// How long messages waited, on average of the last window, by kind of mailbox.
pub const MAILBOX_WAIT: &str = "magpie_node_mailbox_wait_seconds";
/// Events that a receiver of hooks took, ...
pub const HOOKS_TOLD: &str = "magpie_node_hooks_told_total";
/// ... tries that failed, ...
pub const HOOKS_FAILED: &str = "magpie_node_hooks_failed_total";
/// ... and events that were given up.
pub const HOOKS_DROPPED: &str = "magpie_node_hooks_dropped_total";
/// Messages that were refused or masked before they were taken.
pub const HOOKS_JUDGED: &str = "magpie_node_hooks_judged_total";
/// Media streams that are open.
pub const MEDIA_STREAMS: &str = "magpie_node_media_streams";
/// Blobs that were brought whole.
pub const MEDIA_STORED: &str = "magpie_node_media_stored_total";
/// Blobs that were collected because no message named them.
pub const MEDIA_COLLECTED: &str = "magpie_node_media_collected_total";
/// Blobs that somebody who may have them asked for, and that were not there.
pub const MEDIA_MISSING: &str = "magpie_node_media_missing_total";
/// How long a shard worked on a search.
pub const SEARCH_SECONDS: &str = "magpie_node_search_seconds";
/// Entries that were added to search indexes.
pub const SEARCH_INDEXED: &str = "magpie_node_search_indexed_total";
/// Bytes of the files of search indexes.
pub const SEARCH_INDEX_BYTES: &str = "magpie_node_search_index_bytes";

pub(crate) use magpie_cluster::count;

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder of this process, once, and describes what is counted.
pub fn install() -> Option<PrometheusHandle> {
    HANDLE
        .get_or_init(|| {
            let handle = PrometheusBuilder::new().install_recorder().ok()?;
            magpie_cluster::metrics::describe();
            metrics::describe_gauge!(SESSIONS, "sessions that are signed in");
            metrics::describe_counter!(CONNECTIONS, "connections accepted");
            metrics::describe_counter!(PROTOCOL_ERRORS, "connections closed because the device broke the protocol");
            metrics::describe_counter!(REQUESTS, "requests from devices");
            metrics::describe_counter!(REFUSALS, "requests refused, by code");
            metrics::describe_counter!(HINTS, "hints handed to sessions");
            metrics::describe_counter!(HINT_REPAIRS, "times that watches were registered again after a gap");
            metrics::describe_counter!(HINTS_DROPPED, "hints that a slow session did not get: it was told to pull");
            metrics::describe_gauge!(CONVERSATION_ACTORS, "actors of active groups that run");
            metrics::describe_counter!(PASSWORDS_HASHED, "passwords hashed");
            metrics::describe_counter!(LIMITED, "requests refused because a limit was met, by limit");
            metrics::describe_counter!(SHED, "requests turned away because more came than could be served");
            metrics::describe_gauge!(ADMISSION_LEVEL, "last priority that is let in; 511 is everything");
            metrics::describe_gauge!(MAILBOX_WAIT, "how long messages waited on average, by kind of mailbox");
            metrics::describe_counter!(HOOKS_TOLD, "events that a receiver of hooks took");
            metrics::describe_counter!(HOOKS_FAILED, "tries to tell a receiver of hooks that failed");
            metrics::describe_counter!(HOOKS_DROPPED, "events given up because their receiver did not take them");
            metrics::describe_counter!(HOOKS_JUDGED, "messages refused or masked before they were taken");
            metrics::describe_gauge!(MEDIA_STREAMS, "media streams that are open");
            metrics::describe_counter!(MEDIA_STORED, "blobs brought whole");
            metrics::describe_counter!(MEDIA_COLLECTED, "blobs collected because no message named them");
            metrics::describe_counter!(MEDIA_MISSING, "blobs asked for by who may have them, and not there");
            metrics::describe_histogram!(SEARCH_SECONDS, "how long a shard worked on a search");
            metrics::describe_counter!(SEARCH_INDEXED, "entries added to search indexes");
            metrics::describe_gauge!(SEARCH_INDEX_BYTES, "bytes of the files of search indexes");
            Some(handle)
        })
        .clone()
}
