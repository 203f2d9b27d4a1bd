//! The admin HTTP: health, metrics, status, the cluster and its backups. On a thread of its own, so that no scrape waits on a chat.

mod audit;
pub mod backup;
pub mod cluster;

use std::{io, net::SocketAddr, thread::JoinHandle};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    web::{self, Data},
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::node::Observer;

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
                        .route("/healthz", web::get().to(healthz))
                        .route("/readyz", web::get().to(readyz))
                        .route("/metrics", web::get().to(metrics_page))
                        .route("/api/v1/status", web::get().to(status))
                        .configure(cluster::routes)
                        .configure(backup::routes)
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
    HttpResponse::Ok().body("ok\n")
}

async fn readyz(served: Data<Served>) -> HttpResponse {
    let status = served.observer.status();
    match status.ready {
        true => HttpResponse::Ok().body("ready\n"),
        false => HttpResponse::ServiceUnavailable().body(status.problems.join("\n") + "\n"),
    }
}

/// The refusal of who does not carry the token, if there is one.
fn refusal(served: &Served, request: &HttpRequest) -> Option<HttpResponse> {
    let token = served.observer.admin_token();
    let given = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    #[expect(deprecated, reason = "the one comparison in constant time that is in the tree already")]
    let same = ring::constant_time::verify_slices_are_equal(given.as_bytes(), token.as_bytes()).is_ok();
    let refused = || HttpResponse::Unauthorized().body("a bearer token is required: admin.token\n");
    (!token.is_empty() && !same).then(refused)
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
        None => HttpResponse::NotFound().body("no metrics recorder is installed\n"),
    }
}

async fn status(served: Data<Served>, request: HttpRequest) -> HttpResponse {
    refusal(&served, &request).unwrap_or_else(|| HttpResponse::Ok().json(served.observer.status()))
}
