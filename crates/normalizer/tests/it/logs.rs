//! What the logs hold, how often, and what they must not hold.

use std::io::Write;
use std::sync::{Arc, Mutex};

use port_contracts::Operation;
use tracing_subscriber::fmt::MakeWriter;

use crate::scene::{Scene, text, webhook};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Captured {
    /// Captures until the guard is dropped. Tests have one thread, so that this sees every loop.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let captured = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(captured.clone())
            .finish();
        (captured, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn logs_hold_no_content_no_phone_and_no_provider_id() {
    let (captured, _guard) = Captured::start();
    let scene = Scene::new();
    let twice =
        r#"{"from":"4915100000009","id":"wamid.TWICE","text":{"body":"private words"},"text":{"body":"b"}}"#.to_owned();
    scene.backend.refuse_when(|update| {
        let data = std::str::from_utf8(&update.event.data).unwrap();
        data.contains("words 2").then(|| format!("cannot store {data}"))
    });
    scene.take_blobs_down();
    let id = scene.header("acme").id;
    scene.send(&webhook("messages", &[text(1), text(2), "[\"private words\"]".to_owned(), twice])).await;
    scene.publish(format!("private words {id}")).await;
    scene.backend.faults().fail_next(Operation::Commit, 1);
    scene.backend.faults().fail_next(Operation::Publish, 1);
    scene.start();
    scene
        .until("all is done", async |scene| {
            scene.depth().await == 0 && scene.deps.outbox.unpublished().await.unwrap() == 0
        })
        .await;
    scene.stop().await;
    assert_eq!(scene.backend.dead_letters().len(), 4);
    let logs = captured.text();
    for expected in ["dead letter", "pausing", "back; going on", "the blob store is down", "trace="] {
        assert!(logs.contains(expected), "{expected}: {logs}");
    }
    for private in ["private", "words", "wamid", "4915100000"] {
        assert!(!logs.contains(private), "{private}: {logs}");
    }
}

#[tokio::test]
async fn what_envelopes_wait_for_is_said_once() {
    let (captured, _guard) = Captured::start();
    let scene = Scene::new();
    for _ in 0..3 {
        let mut sealed = scene.seal(scene.header("acme"), &webhook("messages", &[text(1)])).to_vec();
        sealed[4] = 9;
        scene.publish(sealed).await;
        assert!(scene.step().await.done.is_empty());
    }
    assert_eq!(captured.text().matches("newer version").count(), 1, "{}", captured.text());
}

#[tokio::test]
async fn envelopes_that_wait_too_long_raise_an_alert_at_most_once_a_minute() {
    let (captured, _guard) = Captured::start();
    let scene = Scene::new();
    scene.backend.faults().take_down(Operation::Commit);
    scene.send(&webhook("messages", &[text(1)])).await;
    scene.start();
    let measured_again = async || {
        let before = scene.backend.faults().calls(Operation::Backlog);
        scene
            .until("it is measured", async |scene| scene.backend.faults().calls(Operation::Backlog) > before + 6)
            .await;
        captured.text().matches("ALERT").count()
    };
    assert_eq!(measured_again().await, 0);
    scene.backend.clock().advance(scene.config.oldest_alert * 2);
    assert_eq!(measured_again().await, 1);
    assert_eq!(measured_again().await, 1);
    scene.backend.clock().advance(std::time::Duration::from_mins(1));
    assert_eq!(measured_again().await, 2);
    scene.stop().await;
}
