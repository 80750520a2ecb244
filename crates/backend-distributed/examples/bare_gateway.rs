//! What a gateway could do at best on this machine: an HTTP handler that publishes the body and awaits the
//! acknowledgement, and nothing else. `scripts/bench-distributed` compares the real one with it.
//!
//! `bare_gateway ADDRESS NATS_URL`: answers every POST. The streams must be there (`wharf migrate`).

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use async_nats::jetstream::{self, message::PublishMessage};

async fn publish(jetstream: web::Data<jetstream::Context>, body: web::Bytes) -> HttpResponse {
    let message = PublishMessage::build().payload(body);
    let Ok(sent) = jetstream.send_publish("inbound.live.bare", message).await else {
        return HttpResponse::ServiceUnavailable().finish();
    };
    match sent.await {
        Ok(_) => HttpResponse::Ok().finish(),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(url)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bare_gateway ADDRESS NATS_URL".into());
    };
    let address: SocketAddr = address.parse()?;
    let client = async_nats::connect(url).await.map_err(std::io::Error::other)?;
    let context = jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(5))
        .max_ack_inflight(20_000)
        .build(client);
    let context = web::Data::new(context);
    HttpServer::new(move || App::new().app_data(context.clone()).default_service(web::post().to(publish)))
        .workers(2)
        .keep_alive(Duration::from_secs(75))
        .bind(address)?
        .run()
        .await?;
    Ok(())
}
