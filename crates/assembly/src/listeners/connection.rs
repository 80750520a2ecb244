//! A connection around the HTTP layer, and what that layer does not see to.
//!
//! **Whoever sends requests and does not read the answers**, or sends them faster than they are answered, fills the buffers
//! of both directions: the HTTP layer reads whatever is there, takes up all requests in it, and then wakes itself without an
//! end, which costs memory and a core. So it gets a little at a time ([`AT_ONCE`]); nothing while it answers, but the body
//! that is waited for; and while nothing can be written it is not asked.
//!
//! **Whoever begins a second head and stops, or never reads the rest of an answer**, is on no clock of the HTTP layer. So
//! there is one ([`Shared::over`]) from the opening of the connection and from the end of each request's handling to the
//! next request. It does not stop for single bytes, and not for a request that is being answered while nothing can be
//! written. Whoever takes what is written, if slowly, has more time with each [`STEP`].
//!
//! **Whoever sends several requests at once** may have some of them read and not looked at, since the HTTP layer looks for
//! no more while sixteen wait, and then only when something comes. So it is asked once more after it has written.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes that the HTTP layer reads before it must answer what is in them: some hundred of the smallest requests.
const AT_ONCE: usize = 4 << 10;
/// Bytes of a body that are read each time somebody waits for more of it.
const WISH: usize = 16 << 10;
/// Bytes of answers for which somebody who reads them has the whole time again.
const STEP: usize = 64 << 10;

/// What is known of a connection.
pub(super) struct Shared {
    stream: RefCell<TcpStream>,
    /// What may still be read in this turn.
    readable: Cell<usize>,
    /// Wakes who was not let read, because a request is being answered.
    refused: Cell<Option<Waker>>,
    /// Since when writing has had to wait; `None` while it has not.
    blocked_since: Cell<Option<Instant>>,
    /// Whether anything was written in this turn.
    has_written: Cell<bool>,
    /// What was written since the last [`STEP`] was done, and when that was.
    step: Cell<(usize, Option<Instant>)>,
    is_answering: Cell<bool>,
    /// How many more bytes the request that is being answered has waited for.
    wished: Cell<usize>,
    /// Since when nothing is being answered.
    since: Cell<Instant>,
}

impl Shared {
    /// Whether anything is read: between requests, and of a body that is waited for.
    pub(super) fn may_read(&self) -> bool {
        !self.is_answering.get() || self.wished.get() > 0
    }

    /// More of a body is waited for, by whichever task.
    pub(super) fn wants_body(&self) {
        self.wished.set(WISH);
        self.let_read();
    }

    fn let_read(&self) {
        if let Some(waker) = self.refused.take() {
            waker.wake();
        }
    }

    /// Nobody waits for a body any more.
    pub(super) fn wants_nothing(&self) {
        self.wished.set(0);
    }

    fn written(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let since = poll.is_pending().then(|| self.blocked_since.get().unwrap_or_else(Instant::now));
        self.blocked_since.set(since);
        if let Poll::Ready(Ok(bytes)) = &poll {
            self.has_written.set(true);
            let (before, at) = self.step.get();
            let done = before + bytes;
            self.step.set(if done < STEP { (done, at) } else { (0, Some(Instant::now())) });
        }
        poll
    }

    /// Waits until nothing has come of the connection for so long.
    async fn over(&self, limit: Duration) {
        loop {
            let since = match self.blocked_since.get() {
                // Who answers is not asked meanwhile, and does not come to an end.
                Some(blocked) if self.is_answering.get() => blocked,
                None if self.is_answering.get() => Instant::now(),
                _ => self.since.get(),
            };
            let since = self.step.get().1.map_or(since, |step| since.max(step));
            let end = since + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A connection as the system has it; under TLS, if there is any.
pub(super) struct Connection(Rc<Shared>);

impl Connection {
    pub(super) fn new(stream: TcpStream) -> (Self, Keeper) {
        let shared = Rc::new(Shared {
            stream: RefCell::new(stream),
            readable: Cell::new(0),
            refused: Cell::new(None),
            blocked_since: Cell::new(None),
            has_written: Cell::new(false),
            step: Cell::new((0, None)),
            is_answering: Cell::new(false),
            wished: Cell::new(0),
            since: Cell::new(Instant::now()),
        });
        (Self(shared.clone()), Keeper(shared))
    }

    fn stream<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        work(Pin::new(&mut *self.0.stream.borrow_mut()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.written(self.stream(|stream| stream.poll_write(cx, bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.written(self.stream(|stream| stream.poll_write_vectored(cx, parts)))
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

/// A connection as the HTTP layer has it: what is read is measured out.
pub(super) struct Measured<T> {
    io: T,
    shared: Rc<Shared>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Measured<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.shared.may_read() {
            self.shared.refused.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let most = self.shared.readable.get().min(buffer.remaining());
        if buffer.remaining() > 0 && most == 0 {
            // The rest has its turn after what was read.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        self.shared.readable.set(self.shared.readable.get() - count);
        self.shared.wished.set(self.shared.wished.get().saturating_sub(count));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Measured<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The other end of a [`Connection`].
pub(super) struct Keeper(Rc<Shared>);

impl Keeper {
    /// What the HTTP layer gets: the connection itself, or TLS on it.
    pub(super) fn measured<T>(&self, io: T) -> Measured<T> {
        Measured { io, shared: self.0.clone() }
    }

    /// Serves the connection to its end, but no longer than it may be idle.
    pub(super) async fn keep(self, limit: Duration, served: impl Future) {
        let shared = &self.0;
        shared.since.set(Instant::now());
        let mut served = pin!(CONNECTION.scope(shared.clone(), served));
        let unblocked = poll_fn(|cx| {
            if shared.blocked_since.get().is_some() {
                // An error shows when it is written to.
                let _ = ready!(shared.stream.borrow().poll_write_ready(cx));
            }
            shared.readable.set(AT_ONCE);
            shared.has_written.set(false);
            let poll = served.as_mut().poll(cx);
            if poll.is_pending() && shared.has_written.get() {
                cx.waker().wake_by_ref();
            }
            poll
        });
        tokio::select! {
            biased;
            _ = unblocked => {}
            () = shared.over(limit) => {}
        }
    }
}

tokio::task_local! {
    /// The one that is served.
    static CONNECTION: Rc<Shared>;
}

/// A request is being answered on the connection that is served, until this is dropped: with the last of its answer.
pub(super) fn answering() -> Answering {
    let connection = CONNECTION.try_with(Rc::clone).ok();
    if let Some(connection) = &connection {
        connection.is_answering.set(true);
    }
    Answering(connection)
}

pub(super) struct Answering(Option<Rc<Shared>>);

impl Answering {
    /// The connection that the request came over.
    pub(super) fn connection(&self) -> Option<Rc<Shared>> {
        self.0.clone()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.is_answering.set(false);
            connection.wants_nothing();
            connection.since.set(Instant::now());
            connection.let_read();
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
        let (_client, connection, keeper) = connection().await;
        let begun = Instant::now();
        let served = async {
            // The handling is over; the answer goes out.
            for _ in 0..10 {
                tokio::time::sleep(LIMIT * 3 / 4).await;
                for _ in 0..STEP / 1024 {
                    let _ = connection.0.written(Poll::Ready(Ok(1024)));
                }
            }
            // Less than that is not enough.
            loop {
                tokio::time::sleep(LIMIT / 4).await;
                let _ = connection.0.written(Poll::Ready(Ok(1024)));
            }
        };
        keeper.keep(LIMIT, served).await;
        let took = begun.elapsed();
        assert!(took >= LIMIT * 17 / 2 && took <= LIMIT * 19 / 2, "{took:?}");
    }

    #[actix_web::test]
    async fn while_a_request_is_answered_only_its_body_is_read() {
        let (mut client, connection, keeper) = connection().await;
        let mut measured = keeper.measured(connection);
        client.write_all(b"a body").await.unwrap();
        let mut read = Vec::new();
        let served = async {
            let answering = answering();
            let mut refused = pin!(measured.read_buf(&mut read));
            for _ in 0..100 {
                assert!(poll_fn(|cx| Poll::Ready(refused.as_mut().poll(cx))).await.is_pending());
                tokio::task::yield_now().await;
            }
            // Somebody else may wait for it, in a task that nothing wakes with this one.
            let connection = answering.connection().unwrap();
            actix_web::rt::spawn(async move { connection.wants_body() });
            refused.await.unwrap();
        };
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(20), keeper.keep(LIMIT, served)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(19), "nothing but the time-out woke it");
        assert_eq!(read, b"a body");
    }

    #[tokio::test]
    async fn what_was_read_is_answered_before_more_is_read() {
        let (mut client, connection, keeper) = connection().await;
        let mut connection = keeper.measured(connection);
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
        let called = http.call((keeper.measured(connection), Some(address)));
        let served = actix_web::rt::spawn(keeper.keep(LIMIT, called));
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
