//! Starts ejabberd, and PostgreSQL for its archive.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use super::{Helper, Server, System, await_start, free_tcp_port, installed, missing, spawn};
use crate::system::xmpp::Xmpp;

const CONFIGURATION: &str = include_str!("../../peers/ejabberd/ejabberd.yml");
const DATABASE: &str = include_str!("../../peers/ejabberd/postgresql.conf");
const SCHEMA: &str = "/usr/share/ejabberd/sql/pg.sql";
/// The database's owner, and the user that PostgreSQL runs as where this program is root.
const DATABASE_USER: &str = "ejabberd";
const SYSTEM_USER: &str = "postgres";
/// How long a certificate is good.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Starts it in a folder of its own, without the name server of Erlang's clusters.
pub(super) fn start(peer: &str) -> anyhow::Result<Server> {
    let (tls, archive) = (peer != "ejabberd-plain", peer == "ejabberd-archive");
    let (erl, libraries) = (installed("erl", peer)?, libraries(peer)?);
    let (files, address) = (tempfile::tempdir()?, free_tcp_port()?);
    let dir = files.path();
    let mut certificate = None;
    if tls {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
        // rcgen's own end, in the year 4096, makes ejabberd crash.
        parameters.not_after = (SystemTime::now() + MONTH).into();
        let signed = parameters.self_signed(&key)?;
        fs::write(dir.join("server.pem"), signed.pem() + &key.serialize_pem())?;
        certificate = Some(signed.der().clone());
    }
    let (mut helpers, mut database) = (Vec::new(), String::new());
    if archive {
        let (helper, address) = postgres(peer, dir)?;
        helpers.push(helper);
        database = address.port().to_string();
    }
    let mut text = CONFIGURATION.to_owned();
    for (word, on) in [("#tls#", tls), ("#archive#", archive)] {
        if on {
            text = text.replace(word, "");
        }
    }
    let text = text
        .replace("{dir}", &dir.display().to_string())
        .replace("{port}", &address.port().to_string())
        .replace("{database-port}", &database);
    fs::write(dir.join("ejabberd.yml"), text)?;
    let spool = dir.join("mnesia").display().to_string();
    // As the package's ejabberdctl starts it, but for its user and its cluster.
    let command = [&erl.display().to_string(), "-noinput", "+K", "true", "+P", "250000", "-mnesia", "dir"]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("{spool:?}"), "-s".to_owned(), "ejabberd".to_owned()])
        .collect();
    let environment = [
        ("ERL_LIBS", libraries.display().to_string()),
        ("ERL_MAX_PORTS", "32000".to_owned()),
        ("ERL_CRASH_DUMP_BYTES", "0".to_owned()),
        ("HOME", dir.display().to_string()),
        ("EJABBERD_CONFIG_PATH", dir.join("ejabberd.yml").display().to_string()),
        ("EJABBERD_LOG_PATH", dir.join("ejabberd.log").display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let system = System::Xmpp(Xmpp::new(address, certificate)?);
    Server::over_tcp(system, address, (command, environment), helpers, files)
}

/// Those in a folder whose names hold this.
fn inside(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Where Debian keeps the Erlang libraries of ejabberd.
fn libraries(peer: &str) -> anyhow::Result<PathBuf> {
    let folders = inside(Path::new("/usr/lib"), "");
    let holds = |folder: &PathBuf| inside(folder, "ejabberd-").iter().any(|one| one.join("ebin").is_dir());
    folders.into_iter().find(holds).with_context(|| missing("ejabberd", peer))
}

/// Runs a program of PostgreSQL's to its end.
fn run(command: &[String]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let done = Command::new(program).args(arguments).current_dir("/").output();
    let done = done.with_context(|| format!("cannot start {program}"))?;
    ensure!(done.status.success(), "{} failed:\n{}", command.join(" "), String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Starts a database with ejabberd's tables. PostgreSQL refuses to run as root.
fn postgres(peer: &str, dir: &Path) -> anyhow::Result<(Helper, SocketAddr)> {
    let versions = inside(Path::new("/usr/lib/postgresql"), "");
    let programs = versions.last().map(|version| version.join("bin")).filter(|bin| bin.join("initdb").exists());
    let programs = programs.with_context(|| missing("PostgreSQL server", peer))?;
    let (data, address) = (dir.join("postgres"), free_tcp_port()?);
    let data_path = data.display().to_string();
    fs::create_dir(&data)?;
    let mut as_user = Vec::new();
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
        run(&["chown".to_owned(), SYSTEM_USER.to_owned(), data_path.clone()])?;
        let setpriv = ["setpriv", "--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--init-groups", "--"];
        as_user = setpriv.map(str::to_owned).to_vec();
    }
    let command = |user: &[String], program: &str, arguments: &[&str]| {
        let program = programs.join(program).display().to_string();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        user.iter().cloned().chain([program]).chain(arguments).collect::<Vec<_>>()
    };
    let create = ["-D", &data_path, "-U", DATABASE_USER, "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"];
    run(&command(&as_user, "initdb", &create))?;
    let text = DATABASE.replace("{dir}", &data_path).replace("{port}", &address.port().to_string());
    fs::write(data.join("postgresql.conf"), text)?;
    let child = spawn(&command(&as_user, "postgres", &["-D", &data_path]), &[], dir)?;
    let mut helper = Helper { child, signal: Signal::QUIT };
    // It takes connections, to refuse them, before it is up.
    let status = || fs::read_to_string(data.join("postmaster.pid")).ok().filter(|status| status.contains("ready"));
    await_start(&mut helper.child, dir, status)?;
    let port = address.port().to_string();
    let load = ["-q", "-h", "127.0.0.1", "-p", &port, "-U", DATABASE_USER, "-d", "postgres"];
    let load = [&load[..], &["-v", "ON_ERROR_STOP=1", "-f", SCHEMA]].concat();
    run(&command(&[], "psql", &load))?;
    Ok((helper, address))
}
