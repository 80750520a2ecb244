//! A connection under the HTTP layer, and what that layer does not see to.
//!
//! **Whoever sends requests and does not read the answers** fills the buffers of both directions. The HTTP layer then wakes
//! itself without an end, which costs a core. So while nothing can be written it is not asked.
//!
//! **Whoever begins a second head and stops, or never reads the rest of an answer**, is on no clock of the HTTP layer. So
//! there is one ([`Idle`]) from the opening of the connection and from the end of each request's handling to the next
//! request. It does not stop for single bytes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection as the HTTP layer (or TLS below it) has it.
pub(super) struct Connection(Rc<Shared>);

struct Shared {
    stream: RefCell<TcpStream>,
    /// Whether the last write had to wait.
    is_blocked: Cell<bool>,
}

/// The other end of a [`Connection`].
pub(super) struct Keeper(Rc<Shared>);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> (Self, Keeper) {
        let shared = Rc::new(Shared { stream: RefCell::new(stream), is_blocked: Cell::new(false) });
        (Self(shared.clone()), Keeper(shared))
    }

    fn stream<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        work(Pin::new(&mut *self.0.stream.borrow_mut()))
    }

    fn written<T>(&self, poll: Poll<T>) -> Poll<T> {
        self.0.is_blocked.set(poll.is_pending());
        poll
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written(self.stream(|stream| stream.poll_write(cx, bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(self.stream(|stream| stream.poll_write_vectored(cx, parts)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_shutdown(cx))
    }
}

impl Keeper {
    /// Serves the connection to its end, but no longer than it may be idle.
    pub(super) async fn keep(self, limit: Duration, served: impl Future) {
        let idle = Rc::new(Idle { is_answering: Cell::new(false), since: Cell::new(Instant::now()) });
        let mut served = pin!(IDLE.scope(idle.clone(), served));
        let unblocked = poll_fn(|cx| {
            if self.0.is_blocked.get() {
                // An error shows when it is written to.
                let _ = ready!(self.0.stream.borrow().poll_write_ready(cx));
            }
            served.as_mut().poll(cx)
        });
        tokio::select! {
            biased;
            _ = unblocked => {}
            () = idle.over(limit) => {}
        }
    }
}

tokio::task_local! {
    /// Of the connection that is served.
    static IDLE: Rc<Idle>;
}

/// Since when nothing is being answered on a connection.
struct Idle {
    is_answering: Cell<bool>,
    since: Cell<Instant>,
}

impl Idle {
    async fn over(&self, limit: Duration) {
        loop {
            let since = if self.is_answering.get() { Instant::now() } else { self.since.get() };
            let end = since + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A request is being answered on this connection, until this is dropped.
pub(super) fn answering() -> Answering {
    let idle = IDLE.try_with(Rc::clone).ok();
    if let Some(idle) = &idle {
        idle.is_answering.set(true);
    }
    Answering(idle)
}

pub(super) struct Answering(Option<Rc<Idle>>);

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(idle) = &self.0 {
            idle.is_answering.set(false);
            idle.since.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(80);

    async fn connection() -> (TcpStream, Connection, Keeper) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (connection, keeper) = Connection::new(listener.accept().await.unwrap().0);
        (client, connection, keeper)
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_nothing_has_its_time_from_the_last_answer_on() {
        let (_client, connection, keeper) = connection().await;
        let (begun, ended) = (Instant::now(), Cell::new(None));
        let served = async {
            let _connection = connection;
            // An answer may take longer than the limit.
            tokio::time::sleep(LIMIT / 2).await;
            let answering = answering();
            tokio::time::sleep(LIMIT * 2).await;
            drop(answering);
            ended.set(Some(Instant::now()));
            std::future::pending::<()>().await;
        };
        keeper.keep(LIMIT, served).await;
        assert_eq!(ended.get().unwrap() - begun, LIMIT * 5 / 2);
        let idle = ended.get().unwrap().elapsed();
        assert!(idle >= LIMIT && idle < LIMIT * 2, "{idle:?}");
    }

    #[tokio::test]
    async fn while_nothing_can_be_written_nobody_is_asked() {
        let (client, mut connection, keeper) = connection().await;
        let (asked, bytes) = (Cell::new(0), vec![0; 1 << 16]);
        let served = poll_fn(|cx| {
            asked.set(asked.get() + 1);
            while let Poll::Ready(written) = Pin::new(&mut connection).poll_write(cx, &bytes) {
                written.unwrap();
            }
            // As the HTTP layer does.
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let before = {
            let kept = keeper.keep(LIMIT, served);
            let mut kept = pin!(kept);
            let turns = async {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = kept.as_mut() => {}
                () = turns => {}
            }
            let before = asked.get();
            // Once it is read, it goes on.
            let mut buffer = vec![0; 1 << 20];
            let goes_on = async {
                while asked.get() == before {
                    client.readable().await.unwrap();
                    let _ = client.try_read(&mut buffer);
                }
            };
            tokio::select! {
                () = kept => {}
                () = goes_on => {}
            }
            before
        };
        assert!(before < 10, "asked {before} times");
    }
}
