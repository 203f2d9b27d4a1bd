//! The admin address, as an operator's probe sees it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What nodes ask for outside of the loopback; elsewhere nobody looks.
pub const TOKEN: &str = "tests";

/// Status and body of a GET.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    send(address, "GET", path, "")
}

/// Status and body of a POST of this JSON.
pub fn post(address: SocketAddr, path: &str, body: &serde_json::Value) -> io::Result<(u16, String)> {
    send(address, "POST", path, &body.to_string())
}

fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let odd = || io::Error::other(format!("no HTTP answer: {answer:?}"));
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(odd)?;
    let body = answer.split_once("\r\n\r\n").ok_or_else(odd)?.1.to_owned();
    Ok((status, body))
}

/// Status and body of a request with this token, if one is given, these headers and this body.
pub fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &serde_json::Value,
) -> io::Result<(u16, String)> {
    let patience = Duration::from_secs(20);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if let Some(token) = token {
        head += &format!("authorization: Bearer {token}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    write!(stream, "{head}\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let odd = || io::Error::other(format!("no HTTP answer: {answer:?}"));
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(odd)?;
    Ok((status, answer.split_once("\r\n\r\n").ok_or_else(odd)?.1.to_owned()))
}
