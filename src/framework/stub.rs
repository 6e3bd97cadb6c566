//! A release server in the test process that can also lie.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// What the server says to one path, in turn; the last answer is repeated.
pub(crate) type Answers = BTreeMap<String, Vec<Answer>>;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that are really sent.
    pub(crate) sent: usize,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status: 200,
            headers: String::new(),
            sent: body.len(),
            body,
        }
    }

    pub(crate) fn status(status: u16, headers: &str) -> Self {
        Self {
            status,
            headers: headers.into(),
            body: Vec::new(),
            sent: 0,
        }
    }
}

/// A server of this process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: String,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let (answers, asked) = (
            Arc::new(Mutex::new(answers)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (theirs, log) = (answers.clone(), asked.clone());
        // The thread ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, log) = (theirs.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &answers, &log));
            }
        });
        Self {
            base,
            answers,
            asked,
        }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(crate) fn answer(&self, path: &str, answers: Vec<Answer>) {
        self.answers
            .lock()
            .expect("no panic")
            .insert(path.into(), answers);
    }
}

fn serve(mut stream: std::net::TcpStream, answers: &Mutex<Answers>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a socket"))
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    log.lock().expect("no panic").push(path.clone());
    let answer = match answers.lock().expect("no panic").get_mut(&path) {
        Some(list) if list.len() > 1 => list.remove(0),
        Some(list) => list[0].clone(),
        None => Answer::status(404, ""),
    };
    let Answer {
        status,
        headers,
        body,
        sent,
    } = answer;
    let head = format!(
        "HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..sent]);
}
