//! A server that answers each request with the next canned answer, or breaks the connection, and keeps what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What to do with one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Status, extra header lines, body.
    Http(u16, &'static str, String),
    /// Read it, then cut the connection.
    Cut,
    /// Read it, and never answer.
    Hang,
}

/// A running server. The last answer is repeated.
#[derive(Debug)]
pub struct Wire {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Wire {
    pub async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answers.clone(), seen.clone()));
            }
        });
        Self { url, requests }
    }

    /// Heads and bodies of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut socket: TcpStream, answers: Arc<Mutex<VecDeque<Answer>>>, seen: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read_request(&mut socket).await {
        let head = request.starts_with("HEAD ");
        seen.lock().unwrap().push(request);
        let answer = {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().unwrap().clone() }
        };
        match answer {
            Answer::Cut => return,
            Answer::Hang => std::future::pending().await,
            Answer::Http(status, headers, body) => {
                let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
                socket.write_all(text.as_bytes()).await.unwrap();
                if !head {
                    socket.write_all(body.as_bytes()).await.unwrap();
                }
            }
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let mut chunk = [0; 4_096];
        let n = socket.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while bytes.len() < head + length {
        let mut chunk = [0; 4_096];
        let n = socket.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
