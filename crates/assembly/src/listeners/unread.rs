//! Around each request: how its body is read, and until when it is being answered, which the connection has to know.
//!
//! A request's chunked body that nobody read to its end ends the connection. After an answer the server reads what is left
//! of such a body and throws it away, for as long as it comes: a body without end, or one that stops in the middle, would
//! keep its connection for ever. So the answer holds the body: the server then closes after it, as it does where a length
//! was announced.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage as _};
use futures_util::Stream;

use super::connection::{Answering, Shared as Connection, answering};

/// See the module's documentation. Also tells the connection when a body is waited for, and until when it answers.
pub(crate) async fn close_after_unread(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answering = answering();
    let connection = answering.connection();
    let payload = request.take_payload();
    let mut unread = None;
    if !matches!(payload, Payload::None) {
        let body = Body { payload: Rc::new(RefCell::new(payload)), connection: connection.clone() };
        request.set_payload(Payload::Stream { payload: Box::pin(body.clone()) });
        unread = request.chunked().unwrap_or(true).then_some(body);
    }
    let answer = next.call(request).await?;
    if let Some(connection) = connection {
        connection.wants_nothing();
    }
    let holding = |answer: BoxBody| Holding { answer, _unread: unread, _answering: answering };
    Ok(answer.map_body(|_, answer| BoxBody::new(holding(answer.boxed()))))
}

/// A body that is read by one and held by another.
#[derive(Clone)]
struct Body {
    payload: Rc<RefCell<Payload>>,
    connection: Option<Rc<Connection>>,
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let poll = Pin::new(&mut *self.payload.borrow_mut()).poll_next(cx);
        if let Some(connection) = &self.connection {
            match &poll {
                Poll::Pending => connection.wants_body(),
                // What waits behind it must not come in with it.
                Poll::Ready(_) => connection.wants_nothing(),
            }
        }
        poll
    }
}

/// An answer that holds the body of its request, if that was chunked.
struct Holding {
    answer: BoxBody,
    _unread: Option<Body>,
    _answering: Answering,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use actix_http::BoxedPayloadStream;
    use futures_util::{StreamExt as _, stream};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::listeners::connection;

    #[tokio::test]
    async fn who_has_got_a_piece_waits_for_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_connection, keeper) = connection::Connection::new(listener.accept().await.unwrap().0);
        let served = async {
            let answering = answering();
            let shared = answering.connection().unwrap();
            let mut is_there = false;
            let piece = poll_fn(move |_| {
                if std::mem::replace(&mut is_there, true) {
                    Poll::Ready(Ok(Bytes::from_static(b"x")))
                } else {
                    Poll::Pending
                }
            });
            let pieces: BoxedPayloadStream = Box::pin(stream::once(piece).chain(stream::pending()));
            let payload = Payload::Stream { payload: pieces };
            let mut body = Body { payload: Rc::new(RefCell::new(payload)), connection: Some(shared.clone()) };
            let mut may_read = async || {
                let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_next(cx))).await;
                (polled.is_ready(), shared.may_read())
            };
            assert_eq!(may_read().await, (false, true), "it waits");
            assert_eq!(may_read().await, (true, false), "it has got what it waited for");
            assert_eq!(may_read().await, (false, true), "it waits for more");
        };
        keeper.keep(Duration::from_secs(80), served).await;
    }
}
