//! The queue, with the test itself as its workers: no time, no threads.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::mpsc;

use futures::FutureExt;

use super::*;

const ONE: Workers = Workers { total: 1, passages: 1 };

fn queue(capacity: usize, workers: Workers) -> (Arc<Queue>, mpsc::Receiver<Worker>) {
    let (started, workers_started) = mpsc::channel();
    let queue = Queue::new(capacity, workers, move |worker| started.send(worker).unwrap());
    (queue, workers_started)
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that a batch takes")]
fn outcome(value: f32) -> Outcome {
    Ok(Embedded { vector: [value].into(), cut_from: None })
}

fn value(answer: oneshot::Receiver<Outcome>) -> f32 {
    answer.now_or_never().unwrap().unwrap().unwrap().vector[0]
}

fn passage(queue: &Arc<Queue>, text: &str) -> Option<oneshot::Receiver<Outcome>> {
    queue.ask_when_room(text).now_or_never()
}

fn texts(batch: Option<&Batch>) -> Vec<&str> {
    batch.map(|batch| batch.texts().iter().map(AsRef::as_ref).collect()).unwrap_or_default()
}

#[test]
fn a_lone_query_starts_a_worker_at_once_and_the_worker_leaves() {
    let (queue, workers) = queue(4, ONE);
    let answer = queue.ask("a").unwrap();
    let mut worker = workers.try_recv().unwrap();
    worker.next(8).unwrap().finish([outcome(1.0)]);
    assert!(value(answer) > 0.5);
    assert!(worker.next(8).is_none());
    let _answer = queue.ask("b").unwrap();
    assert!(workers.try_recv().is_ok(), "the next query starts a worker again");
}

#[test]
fn queries_go_before_passages_that_came_earlier() {
    let (queue, workers) = queue(4, ONE);
    let _held: Vec<_> =
        [passage(&queue, "p1"), passage(&queue, "p2"), queue.ask("q1").ok(), queue.ask("q2").ok()].into();
    let mut worker = workers.try_recv().unwrap();
    let first = worker.next(1);
    assert_eq!(texts(first.as_ref()), ["q1"]);
    first.unwrap().finish([outcome(0.0)]);
    let _late = queue.ask("q3").unwrap();
    assert_eq!(texts(worker.next(8).as_ref()), ["q2", "q3"]);
    assert_eq!(texts(worker.next(8).as_ref()), ["p1", "p2"]);
    assert!(workers.try_recv().is_err(), "never more workers than allowed");
}

#[test]
fn identical_texts_run_once_whether_they_wait_or_run() {
    let (queue, workers) = queue(1, ONE);
    let waiting: Vec<_> = (0..3).map(|_| queue.ask("same").unwrap()).collect();
    let mut worker = workers.try_recv().unwrap();
    let batch = worker.next(8).unwrap();
    assert_eq!(batch.texts().len(), 1);
    let running = queue.ask("same").unwrap();
    let other_line = passage(&queue, "same").unwrap();
    batch.finish([outcome(2.0)]);
    for answer in waiting.into_iter().chain([running, other_line]) {
        assert!(value(answer) > 1.5);
    }
    assert!(worker.next(8).is_none());
}

#[test]
fn a_query_for_a_waiting_passage_moves_it_forward_and_gives_its_room_back() {
    let (queue, workers) = queue(2, ONE);
    let (first, second) = (passage(&queue, "p1").unwrap(), passage(&queue, "p2").unwrap());
    assert!(passage(&queue, "p3").is_none(), "no room");
    let query = queue.ask("p2").unwrap();
    let _third = passage(&queue, "p3").unwrap();
    let mut worker = workers.try_recv().unwrap();
    let batch = worker.next(1);
    assert_eq!(texts(batch.as_ref()), ["p2"]);
    batch.unwrap().finish([outcome(2.0)]);
    assert!(value(query) > 1.5 && value(second) > 1.5);
    let rest = worker.next(8);
    assert_eq!(texts(rest.as_ref()), ["p1", "p3"], "its old place is skipped");
    rest.unwrap().finish([outcome(1.0), outcome(3.0)]);
    assert!(value(first) > 0.5);
}

#[test]
fn a_full_queue_refuses_queries_at_once_unless_callers_have_left() {
    let (queue, _workers) = queue(2, ONE);
    let departed = queue.ask("a").unwrap();
    let _kept = queue.ask("b").unwrap();
    assert_eq!(queue.ask("c").unwrap_err(), Error::Overloaded { waiting: 2 });
    let _shared = queue.ask("b").unwrap();
    drop(departed);
    assert!(queue.ask("c").is_ok(), "the one whose caller left makes room");
}

#[tokio::test]
async fn passages_wait_for_room_and_do_not_take_it_from_queries() {
    let (queue, workers) = queue(1, ONE);
    let _first = queue.ask_when_room("p1").await;
    let mut second = Box::pin(queue.ask_when_room("p2"));
    assert!((&mut second).now_or_never().is_none());
    let _query = queue.ask("q").unwrap();
    let mut worker = workers.try_recv().unwrap();
    worker.next(1).unwrap().finish([outcome(0.0)]);
    let batch = worker.next(1);
    assert_eq!(texts(batch.as_ref()), ["p1"]);
    assert!(second.now_or_never().is_some(), "a passage that runs waits no more");
}

#[test]
fn texts_whose_callers_left_are_skipped() {
    let (queue, workers) = queue(4, ONE);
    drop(queue.ask("gone").unwrap());
    drop(passage(&queue, "gone too").unwrap());
    let _kept = passage(&queue, "kept").unwrap();
    let mut worker = workers.try_recv().unwrap();
    assert_eq!(texts(worker.next(1).as_ref()), ["kept"]);
    assert!(worker.next(1).is_none());
}

#[test]
fn passages_leave_a_worker_to_queries_where_asked_to() {
    let (queue, workers) = queue(8, Workers { total: 2, passages: 1 });
    let _held = [passage(&queue, "p1").unwrap(), passage(&queue, "p2").unwrap()];
    let (mut one, mut two) = (workers.try_recv().unwrap(), workers.try_recv().unwrap());
    let running = one.next(1);
    assert_eq!(texts(running.as_ref()), ["p1"]);
    assert!(two.next(1).is_none(), "no second worker with passages");
    let _query = queue.ask("q").unwrap();
    let mut three = workers.try_recv().unwrap();
    assert_eq!(texts(three.next(1).as_ref()), ["q"]);
    running.unwrap().finish([outcome(0.0)]);
    assert_eq!(texts(one.next(1).as_ref()), ["p2"]);
}

#[test]
fn a_worker_that_breaks_leaves_nobody_waiting() {
    let (queue, workers) = queue(4, ONE);
    let (running, waiting) = (queue.ask("a").unwrap(), passage(&queue, "b").unwrap());
    let mut worker = workers.try_recv().unwrap();
    drop(worker.next(1).unwrap());
    drop(worker);
    for answer in [running, waiting] {
        let told = answer.now_or_never().unwrap().unwrap();
        assert_eq!(told.unwrap_err(), Error::Model("its worker ended".to_owned()));
    }
    let _next = queue.ask("c").unwrap();
    assert!(workers.try_recv().is_ok(), "the queue goes on");
}

#[test]
fn a_backend_that_returns_too_few_vectors_loses_only_those() {
    let (queue, workers) = queue(4, ONE);
    let (first, second) = (queue.ask("a").unwrap(), queue.ask("b").unwrap());
    let mut worker = workers.try_recv().unwrap();
    worker.next(8).unwrap().finish([outcome(1.0)]);
    assert!(value(first) > 0.5);
    assert!(second.now_or_never().unwrap().unwrap().is_err());
}
