//! The handle over the fake: order, sharing, refusals, shutdown; and the server that other tests of this stage talk to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use axum::Router;

use super::*;

/// Serves `router` on a port of its own until the test ends; returns its address.
pub(super) async fn serve(router: Router) -> String {
    // The first test to come here installs it for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    Lifecycle::new().spawn_detached(axum::serve(listener, router).into_future());
    format!("http://{address}")
}

fn embedder(capacity: usize) -> (Embedder, Probe, Lifecycle) {
    let (fake, lifecycle) = (FakeConfig::default(), Lifecycle::new());
    let probe = fake.probe.clone();
    let config = Config { backend: Backend::Fake(fake), queue_capacity: capacity };
    (Embedder::new(config, &lifecycle).unwrap(), probe, lifecycle)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn texts_that_share_words_are_near() {
    let (embedder, ..) = embedder(8);
    let texts = strings(&["connection pool timeout", "the timeout of a connection pool", "parse json"]);
    let found: Vec<_> = embedder.embed_passages(&texts).await.unwrap().into_iter().map(Result::unwrap).collect();
    let query = embedder.embed_query(&texts[0]).await.unwrap();
    assert_eq!(query.vector, found[0]);
    assert!(!query.truncated);
    assert!(cosine(&found[0], &found[1]) > 0.5 && cosine(&found[0], &found[2]) < 0.3);
    assert!((cosine(&found[0], &found[0]) - 1.0).abs() < 1e-5);
    assert_eq!(embedder.identity().await.unwrap().to_string(), "hashed-words/fake/384/1");
}

#[tokio::test]
async fn a_thousand_identical_queries_are_one() {
    let (embedder, probe, _) = embedder(2);
    probe.hold();
    let asked = join_all((0..1000).map(|_| embedder.embed_query("same")));
    let (answers, ()) = tokio::join!(asked, async {
        while probe.texts() == 0 {
            tokio::task::yield_now().await;
        }
        probe.release();
    });
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(probe.texts(), 1);
}

#[tokio::test]
async fn one_bad_passage_loses_no_other_and_equal_ones_run_once() {
    let (embedder, probe, _) = embedder(1);
    let texts = [strings(&["a", " \n", "b", "a"]), vec!["x ".repeat(40_000), "long ".repeat(200)]].concat();
    let found = embedder.embed_passages(&texts).await.unwrap();
    assert!(found[0].is_ok() && found[2].is_ok() && found[0] == found[3]);
    assert_eq!(found[1], Err(Error::Empty));
    assert_eq!(found[4], Err(Error::TooLarge { bytes: 80_000, max: MAX_TEXT_BYTES }));
    assert_eq!(found[5], Err(Error::TooLong { tokens: 334, max: 256 }));
    assert_eq!(probe.texts(), 2);
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason_and_not_remembered() {
    let (embedder, probe, _) = embedder(1);
    probe.fail_next(1);
    let told = embedder.embed_query("a").await.unwrap_err();
    assert_eq!(told.to_string(), "the embedding model failed: the fake was asked to fail");
    assert!(embedder.embed_query("a").await.is_ok());
    assert_eq!(embedder.embed_query("\u{0}\t ").await.unwrap_err(), Error::Empty);
}

#[tokio::test]
async fn a_full_queue_refuses_queries_and_lets_passages_wait() {
    let (embedder, probe, _) = embedder(1);
    probe.hold();
    let mut queries = Vec::new();
    for (begun, text) in ["q1", "q2", "q3"].into_iter().enumerate() {
        let mut query = Box::pin(embedder.embed_query(text));
        assert!(futures::poll!(&mut query).is_pending());
        queries.push(query);
        // The two workers take one query each, the third waits.
        while probe.texts() < (begun + 1).min(2) {
            tokio::task::yield_now().await;
        }
    }
    let passages = strings(&["p1", "p2", "p3"]);
    let mut import = Box::pin(embedder.embed_passages(&passages));
    assert!(futures::poll!(&mut import).is_pending());
    assert_eq!(embedder.embed_query("q4").await.unwrap_err(), Error::Overloaded { waiting: 1 });
    probe.release();
    assert!(join_all(queries).await.iter().all(Result::is_ok));
    assert!(import.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(probe.texts(), 6);
}

#[tokio::test]
async fn stopping_ends_passages_at_once_and_queries_at_the_end() {
    let (embedder, probe, lifecycle) = embedder(4);
    probe.hold();
    let mut query = Box::pin(embedder.embed_query("q"));
    let passages = strings(&["p"]);
    let mut import = Box::pin(embedder.embed_passages(&passages));
    assert!(futures::poll!(&mut query).is_pending() && futures::poll!(&mut import).is_pending());
    lifecycle.stop();
    assert_eq!(import.await, Err(Error::Stopped));
    assert!(futures::poll!(&mut query).is_pending());
    lifecycle.stopped().cancel();
    assert_eq!(query.await.unwrap_err(), Error::Stopped);
    assert_eq!(embedder.embed_query("late").await.unwrap_err(), Error::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_and_goes_leaves_nobody_waiting_and_nothing_behind() {
    let (embedder, ..) = embedder(8);
    let lifecycle = Lifecycle::new();
    let callers: Vec<_> = (0..2000)
        .map(|n| {
            let (embedder, text) = (embedder.clone(), format!("text {}", n % 37));
            lifecycle.spawn_detached(async move {
                match n % 3 {
                    0 => embedder.embed_passages(&[text]).await.map(drop),
                    // Leaves while it waits, or just after.
                    1 => {
                        let mut asked = Box::pin(embedder.embed_query(&text));
                        let _ = futures::poll!(&mut asked);
                        Ok(())
                    }
                    _ => embedder.embed_query(&text).await.map(drop),
                }
            })
        })
        .collect();
    for told in join_all(callers).await.into_iter().map(Result::unwrap) {
        assert!(matches!(told, Ok(()) | Err(Error::Overloaded { .. })), "{told:?}");
    }
    // Texts that nobody waits for any more may still be running.
    while !embedder.queue.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(embedder.embed_query("works").await.is_ok());
}
