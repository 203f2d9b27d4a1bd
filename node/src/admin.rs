//! The admin HTTP: health, metrics, status, the cluster and its backups, people, conversations, keys, invitations, messages of
//! services, hooks. On a thread of its own, so that no scrape waits on a chat. `openapi.json` beside this file says what
//! each route takes and gives.

mod access;
mod audit;
pub mod backup;
pub mod cluster;
pub mod conversations;
pub mod invitations;
pub mod keys;
pub mod messages;
pub mod node;
pub mod notices;
pub mod users;

use std::{io, net::SocketAddr, thread::JoinHandle};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::StatusCode,
    middleware::from_fn,
    web::{self, Data},
};
use metrics_exporter_prometheus::PrometheusHandle;

pub use access::Needs;

use access::{
    Needs::{Nothing, Operator, Scope, Token},
    guard,
};

use crate::node::Observer;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The document of what there is, as OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("admin/openapi.json");

macro_rules! routes {
    ($($method:ident $path:literal $needs:expr => $handler:path;)+) => {
        /// Every route: its method, its path, and what a request must show.
        pub const ROUTES: &[(&str, &str, Needs)] = &[$((stringify!($method), $path, $needs),)+];

        fn routes(config: &mut web::ServiceConfig) {
            config$(.route($path, web::$method().to($handler)))+;
        }
    };
}

routes! {
    get "/healthz" Nothing => healthz;
    get "/readyz" Nothing => readyz;
    get "/metrics" Token => metrics_page;
    get "/openapi.json" Nothing => openapi;
    get "/api/v1/status" Token => status;
    get "/api/v1/cluster" Token => cluster::cluster;
    post "/api/v1/cluster/expect" Token => cluster::expect;
    post "/api/v1/cluster/stand" Token => cluster::stand;
    post "/api/v1/cluster/move" Token => cluster::move_shard;
    post "/api/v1/cluster/lead" Token => cluster::lead;
    post "/api/v1/cluster/balance" Token => cluster::balance;
    post "/api/v1/cluster/replicas" Token => cluster::want;
    post "/api/v1/backup" Token => backup::begin;
    get "/api/v1/backup/part" Token => backup::part;
    post "/api/v1/backup/end" Token => backup::end;
    get "/api/v1/users" Scope("users:read") => users::find;
    get "/api/v1/users/{user}" Scope("users:read") => users::show;
    post "/api/v1/users/{user}/disable" Scope("users:write") => users::disable;
    post "/api/v1/users/{user}/enable" Scope("users:write") => users::enable;
    post "/api/v1/users/{user}/sign-out" Scope("users:write") => users::sign_out;
    post "/api/v1/users/{user}/notice" Scope("users:write") => users::notice;
    get "/api/v1/notices" Operator => notices::list;
    post "/api/v1/notices" Operator => notices::create;
    get "/api/v1/conversations/{conversation}" Scope("conversations:read") => conversations::show;
    post "/api/v1/conversations/{conversation}/dissolve" Scope("conversations:write") => conversations::dissolve;
    get "/api/v1/keys" Operator => keys::list;
    post "/api/v1/keys" Operator => keys::create;
    delete "/api/v1/keys/{key}" Operator => keys::revoke;
    get "/api/v1/invitations" Scope("users:read") => invitations::list;
    post "/api/v1/invitations" Scope("users:write") => invitations::create;
    delete "/api/v1/invitations/{code}" Scope("users:write") => invitations::revoke;
    get "/api/v1/log" Operator => node::log_level;
    put "/api/v1/log" Operator => node::set_log_level;
    get "/api/v1/hooks" Scope("hooks:read") => node::hooks;
    post "/api/v1/hooks/{receiver}/retry" Operator => node::retry_hook;
    post "/api/v1/hooks/{receiver}/drop" Operator => node::drop_hook;
    post "/v1/messages" Scope("send") => messages::send;
}

/// The running admin server.
pub struct Admin {
    address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

struct Served {
    observer: Observer,
    metrics: Option<PrometheusHandle>,
}

impl Admin {
    /// Starts serving on this address.
    pub fn start(listen: SocketAddr, observer: Observer, metrics: Option<PrometheusHandle>) -> io::Result<Self> {
        let (started, address) = std::sync::mpsc::channel();
        let serve = move || {
            let system = actix_web::rt::System::new();
            system.block_on(async move {
                let served = Data::new(Served { observer, metrics });
                let app = move || {
                    App::new()
                        .app_data(served.clone())
                        .app_data(web::JsonConfig::default().limit(BODY_BYTES_MAX))
                        .wrap(from_fn(guard))
                        .configure(routes)
                };
                let bound = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(1).bind(listen);
                match bound {
                    Ok(server) => {
                        let address = server.addrs().first().copied().unwrap_or(listen);
                        let running = server.run();
                        if started.send(Ok((address, running.handle()))).is_ok()
                            && let Err(error) = running.await
                        {
                            tracing::error!(%error, "the admin server ended");
                        }
                    }
                    Err(error) => {
                        let named = format!("cannot listen for admin on {listen}: {error}");
                        _ = started.send(Err(io::Error::new(error.kind(), named)));
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("magpie-admin".into()).spawn(serve)?;
        let (address, handle) = address.recv().map_err(|_| io::Error::other("the admin server did not start"))??;
        Ok(Self { address, handle, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops serving.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        if self.thread.join().is_err() {
            tracing::error!("the admin thread ended in a panic");
        }
    }
}

async fn healthz() -> HttpResponse {
    plain(StatusCode::OK, "ok")
}

async fn readyz(served: Data<Served>) -> HttpResponse {
    let status = served.observer.status();
    match status.ready {
        true => plain(StatusCode::OK, "ready"),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, &status.problems.join("\n")),
    }
}

/// Whether two secrets are the same, in a time that says nothing about where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    #[expect(deprecated, reason = "the one comparison in constant time that is in the tree already")]
    let same = ring::constant_time::verify_slices_are_equal(a, b);
    same.is_ok()
}

/// What the request shows of who asks.
fn bearer(request: &HttpRequest) -> &str {
    let given = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default()
}

/// Whether that is a key: whoever shows one is not the operator, also where no token is required.
fn shows_key(request: &HttpRequest) -> bool {
    bearer(request).starts_with("mk_")
}

/// A line, or several.
fn plain(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(format!("{text}\n"))
}

fn done() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({}))
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(OPENAPI)
}

/// The refusal of who does not carry the token, if there is one.
fn refusal(served: &Served, request: &HttpRequest) -> Option<HttpResponse> {
    let token = served.observer.admin_token();
    let same = same(bearer(request).as_bytes(), token.as_bytes());
    let refused = || plain(StatusCode::UNAUTHORIZED, "a bearer token is required: admin.token");
    (shows_key(request) || (!token.is_empty() && !same)).then(refused)
}

async fn metrics_page(served: Data<Served>, request: HttpRequest) -> HttpResponse {
    if let Some(refusal) = refusal(&served, &request) {
        return refusal;
    }
    match &served.metrics {
        Some(metrics) => {
            metrics.run_upkeep();
            HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(metrics.render())
        }
        None => plain(StatusCode::NOT_FOUND, "no metrics recorder is installed"),
    }
}

async fn status(served: Data<Served>, request: HttpRequest) -> HttpResponse {
    refusal(&served, &request).unwrap_or_else(|| HttpResponse::Ok().json(served.observer.status()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_conversely() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let methods = |(path, item): (&String, &serde_json::Value)| -> Vec<(String, String)> {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.clone(), path.clone())).collect()
        };
        let described: BTreeSet<_> = paths.iter().flat_map(methods).collect();
        let served: BTreeSet<_> = ROUTES.iter().map(|(m, p, _)| ((*m).to_owned(), (*p).to_owned())).collect();
        assert_eq!(described, served);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
