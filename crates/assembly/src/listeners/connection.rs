//! A connection under the HTTP layer, and what that layer does not see to.
//!
//! **Whoever sends requests and does not read the answers** fills the buffers of both directions. The HTTP layer reads all
//! that is there and answers it, and then wakes itself without an end, which costs memory and a core. So it gets a little at
//! a time ([`AT_ONCE`]), and while nothing can be written it is not asked.
//!
//! **Whoever begins a second head and stops, or never reads the rest of an answer**, is on no clock of the HTTP layer. So
//! there is one ([`Idle`]) from the opening of the connection and from the end of each request's handling to the next
//! request. It does not stop for single bytes, and not for a request that is being answered while nothing can be written.
//! Whoever takes what is written, if slowly, has more time with each [`STEP`].
//!
//! **Whoever sends many requests at once** may have some of them read and not looked at: the HTTP layer takes up no more
//! while sixteen wait, and where those are answered at once it waits for the next byte, which may never come. So it is
//! asked once more after it has written.

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

/// Bytes that the HTTP layer reads before it must write what it has to say of them: some hundred of the smallest requests.
const AT_ONCE: usize = 8 << 10;

/// Bytes of answers for which somebody who reads them has the whole time again.
const STEP: usize = 64 << 10;

/// A connection as the HTTP layer (or TLS below it) has it.
pub(super) struct Connection(Rc<Shared>);

struct Shared {
    stream: RefCell<TcpStream>,
    /// What may still be read in this turn.
    readable: Cell<usize>,
    /// Since when writing has had to wait; `None` while it has not.
    blocked_since: Cell<Option<Instant>>,
    /// Whether anything was written in this turn.
    has_written: Cell<bool>,
    /// What was written since the last [`STEP`] was done, and when that was.
    step: Cell<(usize, Option<Instant>)>,
}

/// The other end of a [`Connection`].
pub(super) struct Keeper(Rc<Shared>);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> (Self, Keeper) {
        // A handshake takes what it needs.
        let (readable, blocked_since) = (Cell::new(usize::MAX), Cell::new(None));
        let (has_written, step) = (Cell::new(false), Cell::new((0, None)));
        let shared = Rc::new(Shared { stream: RefCell::new(stream), readable, blocked_since, has_written, step });
        (Self(shared.clone()), Keeper(shared))
    }

    fn stream<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        work(Pin::new(&mut *self.0.stream.borrow_mut()))
    }

    fn written(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let since = poll.is_pending().then(|| self.0.blocked_since.get().unwrap_or_else(Instant::now));
        self.0.blocked_since.set(since);
        if let Poll::Ready(Ok(bytes)) = &poll {
            self.0.has_written.set(true);
            let (before, at) = self.0.step.get();
            let done = before + bytes;
            self.0.step.set(if done < STEP { (done, at) } else { (0, Some(Instant::now())) });
        }
        poll
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.0.readable.get().min(buffer.remaining());
        if buffer.remaining() > 0 && most == 0 {
            // The rest has its turn after the answers.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(self.stream(|stream| stream.poll_read(cx, &mut part)))?;
        let count = part.filled().len();
        buffer.advance(count);
        self.0.readable.set(self.0.readable.get() - count);
        Poll::Ready(Ok(()))
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
            if self.0.blocked_since.get().is_some() {
                // An error shows when it is written to.
                let _ = ready!(self.0.stream.borrow().poll_write_ready(cx));
            }
            self.0.readable.set(AT_ONCE);
            self.0.has_written.set(false);
            let poll = served.as_mut().poll(cx);
            if poll.is_pending() && self.0.has_written.get() {
                cx.waker().wake_by_ref();
            }
            poll
        });
        tokio::select! {
            biased;
            _ = unblocked => {}
            () = idle.over(limit, &self.0) => {}
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
    async fn over(&self, limit: Duration, connection: &Shared) {
        loop {
            let since = match connection.blocked_since.get() {
                // Who answers is not asked meanwhile, and does not come to an end.
                Some(blocked) if self.is_answering.get() => blocked,
                None if self.is_answering.get() => Instant::now(),
                _ => self.since.get(),
            };
            let since = connection.step.get().1.map_or(since, |step| since.max(step));
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
    use actix_service::{Service as _, ServiceFactory as _, fn_service};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_to_somebody_who_does_not_read_ends_too() {
        let (_client, mut connection, keeper) = connection().await;
        let begun = Instant::now();
        let served = async {
            let _answering = answering();
            let bytes = vec![0; 1 << 16];
            while connection.write_all(&bytes).await.is_ok() {}
        };
        keeper.keep(LIMIT, served).await;
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() <= LIMIT * 2, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_an_answer_slowly_has_the_time_for_it() {
        const ANSWER: usize = 64 << 20;
        let (mut client, mut connection, keeper) = connection().await;
        let served = async {
            // The handling is over; the answer goes out.
            connection.write_all(&vec![0; ANSWER]).await.unwrap();
            drop(connection);
        };
        let begun = Instant::now();
        let reading = async {
            let (mut read, mut buffer) = (0, vec![0; ANSWER / 100]);
            loop {
                match client.read(&mut buffer).await.unwrap() {
                    0 => break read,
                    bytes => read += bytes,
                }
                tokio::time::sleep(LIMIT / 4).await;
            }
        };
        let ((), read) = tokio::join!(keeper.keep(LIMIT, served), reading);
        assert_eq!(read, ANSWER);
        assert!(begun.elapsed() > LIMIT * 4, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_was_read_is_answered_before_more_is_read() {
        let (mut client, mut connection, keeper) = connection().await;
        client.write_all(&vec![0; AT_ONCE * 4]).await.unwrap();
        let (turns, most) = (Cell::new(0), Cell::new(0));
        let mut left = AT_ONCE * 4;
        let served = poll_fn(|cx| {
            turns.set(turns.get() + 1);
            let (mut bytes, mut count) = (vec![0; AT_ONCE * 8], 0);
            loop {
                let mut buffer = ReadBuf::new(&mut bytes);
                match Pin::new(&mut connection).poll_read(cx, &mut buffer) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => break,
                }
                count += buffer.filled().len();
            }
            most.set(most.get().max(count));
            left -= count;
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        });
        keeper.keep(LIMIT, served).await;
        assert!(turns.get() >= 4 && most.get() <= AT_ONCE, "{} turns, {} at once", turns.get(), most.get());
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

    #[actix_web::test]
    async fn what_was_read_and_not_looked_at_is_answered_too() {
        const REQUESTS: usize = 300;
        let (mut client, connection, keeper) = connection().await;
        let (first, asked) = (Rc::new(tokio::sync::Notify::new()), Rc::new(Cell::new(0)));
        let (told, counted) = (first.clone(), asked.clone());
        let answers = fn_service(move |_: actix_http::Request| {
            counted.set(counted.get() + 1);
            let first = (counted.get() == 1).then(|| told.clone());
            async move {
                if let Some(first) = first {
                    first.notified().await;
                }
                Ok::<_, actix_http::Error>(actix_http::Response::ok())
            }
        });
        let address = client.local_addr().unwrap();
        let http = super::super::http(LIMIT, std::future::pending::<()>, address).h1(answers);
        let http = http.new_service(()).await.unwrap();
        // By itself, as everything that wakes this test would wake it too.
        let served = actix_web::rt::spawn(keeper.keep(LIMIT, http.call((connection, Some(address)))));
        let asking = async {
            // More than one turn reads.
            client
                .write_all(&b"GET / HTTP/1.1\r\nHost: wharf\r\nX: some more of it\r\n\r\n".repeat(REQUESTS))
                .await
                .unwrap();
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(asked.get(), 1, "the others wait for the first");
            first.notify_one();
            let mut answered = Vec::new();
            while answered.windows(4).filter(|end| end == b"\r\n\r\n").count() < REQUESTS {
                client.read_buf(&mut answered).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asking).await.expect("every request is answered");
        served.abort();
        assert_eq!(asked.get(), REQUESTS);
    }
}
