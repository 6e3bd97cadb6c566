//! `kfactory netboot serve`: the files of a directory over HTTP, for firmware and iPXE.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_http::services::ServeDir;

use super::netboot::{self, SCRIPT};
use crate::error::{Context as _, Error, Result};
use crate::printable;

/// Says something to whoever started the server.
pub type Say<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// Serves `dir` at `address` until the user stops it.
///
/// Whole files and ranges of them, by `GET` and `HEAD`; no listings, and nothing outside of the directory but what links in it lead to.
///
/// # Errors
///
/// The directory holds no script, or the address cannot be listened at.
pub fn run(dir: &Path, address: SocketAddr, say: &mut Say<'_>) -> Result<()> {
    if !dir.join(SCRIPT).is_file() {
        return Err(
            Error::user(format!("`{}` holds no {SCRIPT}", dir.display())).hint(format!(
                "`kfactory netboot SOURCE -o {}` makes it, in a new directory",
                dir.display()
            )),
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context(|| "starting the network threads".into())?;
    let doing = || format!("cannot listen at {address}");
    let listener = runtime
        .block_on(TcpListener::bind(address))
        .context(doing)
        .map_err(|error| {
            error.hint("`--address IP:PORT` names another; ports from 1024 on need no privilege")
        })?;
    let bound = listener.local_addr().context(doing)?;
    say(&told(bound))?;
    if dir.join(netboot::CONFIG).exists() {
        say(&format!(
            "whoever reaches it reads the configuration {} too\n",
            netboot::CONFIG
        ))?;
    }
    let script = std::fs::read_to_string(dir.join(SCRIPT))
        .context(|| format!("reading {}", dir.join(SCRIPT).display()))?;
    let script = move |headers: HeaderMap| std::future::ready(script_for(&script, &headers));
    let app = Router::new()
        .route(&format!("/{SCRIPT}"), get(script))
        .fallback_service(ServeDir::new(dir).append_index_html_on_directories(false))
        .layer(from_fn(log));
    let served = runtime.block_on(async {
        tokio::select! {
            served = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()) => {
                served.context(|| "serving".into())
            }
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    // Whoever still loads something, or waits for a pipe in the directory, does not keep the user waiting.
    runtime.shutdown_background();
    served
}

/// Returns the script with the address by which it was asked for, which not every iPXE knows.
fn script_for(script: &str, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match host.map(|host| netboot::check_url(&format!("http://{host}"))) {
        Some(Ok(url)) => netboot::at(script, &url),
        _ => script.to_owned(),
    }
}

/// Says where the script is, and how machines find it.
fn told(bound: SocketAddr) -> String {
    let host = match bound.ip().is_unspecified() {
        true => match own_address() {
            Some(address) => SocketAddr::new(address, bound.port()).to_string(),
            None => format!("THIS-MACHINE:{}", bound.port()),
        },
        false => bound.to_string(),
    };
    format!(
        "serving http://{host}/{SCRIPT}\n\
         at iPXE's prompt: dhcp && chain http://{host}/{SCRIPT}\n\
         for dnsmasq:      dhcp-match=set:ipxe,175\n\
         {:18}dhcp-boot=tag:ipxe,http://{host}/{SCRIPT}\n",
        ""
    )
}

/// Returns the address by which this machine goes to others. Nothing is sent to find out.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // One that is kept for documentation, so that the default route leads there.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// Writes a line for each request that was answered.
async fn log(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    let line = format!("{} {what} {}", peer.ip(), response.status().as_u16());
    // Nobody may be reading any more; the machines are served all the same.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("{}\n", printable::line(&line)).as_bytes(),
    );
    response
}
