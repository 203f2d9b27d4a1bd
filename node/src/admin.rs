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
pub mod users;

use std::{io, net::SocketAddr, thread::JoinHandle};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::StatusCode,
    web::{self, Data},
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::node::Observer;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The document of what there is, as OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("admin/openapi.json");

macro_rules! routes {
    ($($method:ident $path:literal => $handler:path;)+) => {
        /// Every route: its method, and its path.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path),)+];

        fn routes(config: &mut web::ServiceConfig) {
            config$(.route($path, web::$method().to($handler)))+;
        }
    };
}

routes! {
    get "/healthz" => healthz;
    get "/readyz" => readyz;
    get "/metrics" => metrics_page;
    get "/openapi.json" => openapi;
    get "/api/v1/status" => status;
    get "/api/v1/cluster" => cluster::cluster;
    post "/api/v1/cluster/expect" => cluster::expect;
    post "/api/v1/cluster/stand" => cluster::stand;
    post "/api/v1/cluster/move" => cluster::move_shard;
    post "/api/v1/cluster/lead" => cluster::lead;
    post "/api/v1/cluster/balance" => cluster::balance;
    post "/api/v1/cluster/replicas" => cluster::want;
    post "/api/v1/backup" => backup::begin;
    get "/api/v1/backup/part" => backup::part;
    post "/api/v1/backup/end" => backup::end;
    get "/api/v1/users" => users::find;
    get "/api/v1/users/{user}" => users::show;
    post "/api/v1/users/{user}/disable" => users::disable;
    post "/api/v1/users/{user}/enable" => users::enable;
    post "/api/v1/users/{user}/sign-out" => users::sign_out;
    post "/api/v1/users/{user}/notice" => users::notice;
    get "/api/v1/conversations/{conversation}" => conversations::show;
    post "/api/v1/conversations/{conversation}/dissolve" => conversations::dissolve;
    get "/api/v1/keys" => keys::list;
    post "/api/v1/keys" => keys::create;
    delete "/api/v1/keys/{key}" => keys::revoke;
    get "/api/v1/invitations" => invitations::list;
    post "/api/v1/invitations" => invitations::create;
    delete "/api/v1/invitations/{code}" => invitations::revoke;
    get "/api/v1/log" => node::log_level;
    put "/api/v1/log" => node::set_log_level;
    get "/api/v1/hooks" => node::hooks;
    post "/api/v1/hooks/{receiver}/retry" => node::retry_hook;
    post "/api/v1/hooks/{receiver}/drop" => node::drop_hook;
    post "/v1/messages" => messages::send;
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
        let served: BTreeSet<_> = ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
        assert_eq!(described, served);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
