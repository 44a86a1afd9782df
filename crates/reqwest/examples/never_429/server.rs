//! A server that enforces a sliding log, and bans.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long a ban lasts.
const BAN: Duration = Duration::from_millis(300);

/// A call is counted up to this long after it came, and answered up to this long after that.
const DELAY_MS: u64 = 40;

/// A call that the server has counted.
pub(crate) struct Counted {
    pub(crate) at: Duration,
    pub(crate) refused: bool,
}

pub(crate) struct Server {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

struct Book {
    since: Instant,
    rate: usize,
    per: Duration,
    /// When each call of the present window was counted.
    window: VecDeque<Instant>,
    fullest: usize,
    banned_until: Option<Instant>,
    counted: Vec<Counted>,
}

impl Book {
    /// Counts a call now: into the closed window that ends now.
    fn count(&mut self) -> StatusCode {
        let now = Instant::now();
        while self.window.front().is_some_and(|at| now - *at > self.per) {
            self.window.pop_front();
        }
        self.window.push_back(now);
        self.fullest = self.fullest.max(self.window.len());
        let banned = self.banned_until.is_some_and(|until| now < until);
        let over = self.window.len() > self.rate;
        if over && !banned {
            self.banned_until = Some(now + BAN);
        }
        let refused = over || banned;
        self.counted.push(Counted { at: now - self.since, refused });
        if refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK }
    }
}

async fn call(State(book): State<Arc<Mutex<Book>>>) -> StatusCode {
    let delay = || tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=DELAY_MS)));
    delay().await;
    let status = book.lock().expect("nothing panics while counting").count();
    delay().await;
    status
}

impl Server {
    pub(crate) async fn start(rate: usize, per: Duration) -> std::io::Result<Self> {
        let book = Arc::new(Mutex::new(Book {
            since: Instant::now(),
            rate,
            per,
            window: VecDeque::new(),
            fullest: 0,
            banned_until: None,
            counted: vec![],
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let routes = Router::new().route("/", get(call)).with_state(Arc::clone(&book));
        let task =
            tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Ok(Self { address, book, task })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What it has counted, and its fullest window.
    pub(crate) fn stop(self) -> (Vec<Counted>, usize) {
        self.task.abort();
        let mut book = self.book.lock().expect("nothing panics while counting");
        (std::mem::take(&mut book.counted), book.fullest)
    }
}
