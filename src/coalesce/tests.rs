//! The interleavings of callers, flights and publishes: a scheduler picks the order of every lock and task, thousands of
//! times, from a seed that a failure prints.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use shuttle::{check_random, future, sync::Mutex};

use super::{Error, Flights, Role};

/// Enough that each planted fault in this module's rules was found within a tenth of it.
const SCHEDULES: usize = 2_000;

/// Of readers against a publisher, which is what must never go wrong.
const RACES: usize = 10_000;

fn flights<V: Clone + Send + Sync + 'static>(max: usize) -> Flights<u64, V> {
    Flights::with_spawn("test", max, |work| drop(future::spawn(work)))
}

/// What a search does around a flight: look, and look again inside, then fill.
async fn read_through(flights: &Flights<u64, u64>, cache: &Arc<Mutex<Option<u64>>>, ran: &Arc<AtomicUsize>) -> u64 {
    if let Some(known) = *cache.lock().unwrap() {
        return known;
    }
    let (cache, ran) = (Arc::clone(cache), Arc::clone(ran));
    let work = || async move {
        if let Some(known) = *cache.lock().unwrap() {
            return known;
        }
        future::yield_now().await;
        ran.fetch_add(1, Ordering::SeqCst);
        *cache.lock().unwrap() = Some(7);
        7
    };
    flights.join(1, work).await.1.unwrap()
}

#[test]
fn many_callers_of_one_key_run_its_work_once() {
    check_random(
        || {
            let (flights, cache, ran) = (flights(4), Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    let (flights, cache, ran) = (flights.clone(), Arc::clone(&cache), Arc::clone(&ran));
                    future::spawn(async move { read_through(&flights, &cache, &ran).await })
                })
                .collect();
            future::block_on(async {
                for caller in callers {
                    assert_eq!(caller.await.unwrap(), 7);
                }
            });
            assert_eq!(ran.load(Ordering::SeqCst), 1);
            assert_eq!(flights.in_flight(), 0);
        },
        SCHEDULES,
    );
}

#[test]
fn a_caller_that_leaves_at_any_point_takes_nothing_from_the_others() {
    check_random(
        || {
            let (flights, cache, ran) = (flights(4), Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
            let start = || {
                let (flights, cache, ran) = (flights.clone(), Arc::clone(&cache), Arc::clone(&ran));
                future::spawn(async move { read_through(&flights, &cache, &ran).await })
            };
            let leaver = start();
            let stayers = [start(), start()];
            future::block_on(async {
                // Once two wait, one that leaves is not the last: the work must not start again for the others.
                while flights.waiters(&1) < 2 && cache.lock().unwrap().is_none() {
                    future::yield_now().await;
                }
                leaver.abort();
                for stayer in stayers {
                    assert_eq!(stayer.await.unwrap(), 7);
                }
                drop(leaver.await);
            });
            assert_eq!(ran.load(Ordering::SeqCst), 1);
            assert_eq!(flights.in_flight(), 0);
        },
        SCHEDULES,
    );
}

/// A caller that looks for the answer itself before the flight becomes a task.
fn look_first(
    flights: &Flights<u64, u64>,
    found: bool,
    (looks, ran): (&Arc<AtomicUsize>, &Arc<AtomicUsize>),
) -> impl Future<Output = u64> + Send + 'static {
    let (flights, looks, ran) = (flights.clone(), Arc::clone(looks), Arc::clone(ran));
    async move {
        let first = async {
            looks.fetch_add(1, Ordering::SeqCst);
            future::yield_now().await;
            if found { Ok(7) } else { Err("nowhere") }
        };
        let work = |missing: Option<&'static str>| async move {
            assert!(missing.is_none_or(|missing| missing == "nowhere"));
            future::yield_now().await;
            ran.fetch_add(1, Ordering::SeqCst);
            7
        };
        flights.join_after(1, first, work).await.1.unwrap()
    }
}

#[test]
fn what_the_first_caller_finds_itself_is_everybodys_and_starts_no_task() {
    check_random(
        || {
            let (flights, looks, ran) = (flights(4), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let callers: Vec<_> = (0..3).map(|_| future::spawn(look_first(&flights, true, (&looks, &ran)))).collect();
            future::block_on(async {
                for caller in callers {
                    assert_eq!(caller.await.unwrap(), 7);
                }
            });
            assert_eq!(ran.load(Ordering::SeqCst), 0);
            assert!((1..=3).contains(&looks.load(Ordering::SeqCst)), "one for each flight");
            assert_eq!(flights.in_flight(), 0);
        },
        SCHEDULES,
    );
}

#[test]
fn a_first_caller_that_leaves_while_it_looks_leaves_the_work_to_a_task() {
    check_random(
        || {
            let (flights, looks, ran) = (flights(4), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let leaver = future::spawn(look_first(&flights, false, (&looks, &ran)));
            let stayers = [(); 2].map(|()| future::spawn(look_first(&flights, false, (&looks, &ran))));
            future::block_on(async {
                leaver.abort();
                for stayer in stayers {
                    assert_eq!(stayer.await.unwrap(), 7, "whoever stays is answered");
                }
                drop(leaver.await);
            });
            assert_eq!(flights.in_flight(), 0);
        },
        SCHEDULES,
    );
}

#[test]
fn when_everybody_leaves_the_work_is_cancelled_and_the_key_is_free() {
    check_random(
        || {
            let flights = flights::<u64>(4);
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let flights = flights.clone();
                    future::spawn(async move { flights.join(1, std::future::pending).await })
                })
                .collect();
            for caller in &callers {
                caller.abort();
            }
            future::block_on(async {
                for caller in callers {
                    assert!(caller.await.is_err(), "left");
                }
                assert_eq!(flights.in_flight(), 0);
                assert_eq!(flights.join(1, || async { 9 }).await, (Role::Leader, Ok(9)));
            });
        },
        SCHEDULES,
    );
}

#[test]
fn a_panic_is_told_to_every_waiter_and_to_nobody_after_them() {
    check_random(
        || {
            let flights = flights::<u64>(4);
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let flights = flights.clone();
                    let work = || async {
                        future::yield_now().await;
                        std::panic::resume_unwind(Box::new("planted"))
                    };
                    future::spawn(async move { flights.join(1, work).await.1 })
                })
                .collect();
            future::block_on(async {
                for caller in callers {
                    assert_eq!(caller.await.unwrap(), Err(Error::Panicked));
                }
                assert_eq!(flights.join(1, || async { 9 }).await, (Role::Leader, Ok(9)));
            });
        },
        SCHEDULES,
    );
}

#[test]
fn beyond_the_bound_a_new_key_is_refused_and_a_known_one_joins() {
    check_random(
        || {
            let flights = flights::<u64>(1);
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            let first = {
                let flights = flights.clone();
                future::spawn(async move { flights.join(1, || async { u64::from(gate.await.is_ok()) }).await.1 })
            };
            future::block_on(async {
                while flights.in_flight() == 0 {
                    future::yield_now().await;
                }
                let refused = flights.join(2, || async { 2 }).await.1;
                assert_eq!(refused, Err(Error::Full { max: 1 }));
                let second = {
                    let flights = flights.clone();
                    future::spawn(async move { flights.join(1, || async { 3 }).await })
                };
                future::yield_now().await;
                open.send(()).unwrap();
                assert_eq!(first.await.unwrap(), Ok(1));
                let (role, answer) = second.await.unwrap();
                assert_eq!(answer, Ok(if role == Role::Follower { 1 } else { 3 }));
            });
        },
        SCHEDULES,
    );
}

/// A database whose one document is its generation's number, and a cache of answers by key.
#[derive(Default)]
struct World {
    published: Mutex<u64>,
    cache: Mutex<std::collections::HashMap<u64, u64>>,
}

impl World {
    /// A read as the server does it: resolve, look, and otherwise a flight that computes and fills. `keyed` says whether the
    /// generation is part of the key.
    async fn read(self: &Arc<Self>, flights: &Flights<u64, u64>, keyed: bool) -> u64 {
        let generation = *self.published.lock().unwrap();
        let key = if keyed { generation } else { 0 };
        if let Some(known) = self.cache.lock().unwrap().get(&key).copied() {
            return known;
        }
        let world = Arc::clone(self);
        let work = || async move {
            // The statement sees what is published when it runs, and the answer comes later.
            let seen = if keyed { generation } else { *world.published.lock().unwrap() };
            future::yield_now().await;
            world.cache.lock().unwrap().insert(key, seen);
            seen
        };
        flights.join(key, work).await.1.unwrap()
    }

    fn publish(&self, keyed: bool) {
        *self.published.lock().unwrap() += 1;
        if !keyed {
            self.cache.lock().unwrap().clear();
        }
    }
}

fn readers_and_a_publisher(keyed: bool) {
    let (world, flights) = (Arc::new(World::default()), flights(8));
    let reader = {
        let (world, flights) = (Arc::clone(&world), flights.clone());
        future::spawn(async move { world.read(&flights, keyed).await })
    };
    let publisher = {
        let (world, flights) = (Arc::clone(&world), flights.clone());
        future::spawn(async move {
            for _ in 0..2 {
                world.publish(keyed);
                // The publish is acknowledged: from here on its documents must be seen.
                let acknowledged = *world.published.lock().unwrap();
                let answer = world.read(&flights, keyed).await;
                assert!(answer >= acknowledged, "answered generation {answer} after {acknowledged} was published");
            }
        })
    };
    future::block_on(async {
        reader.await.unwrap();
        publisher.await.unwrap();
    });
}

#[test]
fn a_fill_that_raced_a_publish_is_never_read_after_it() {
    check_random(|| readers_and_a_publisher(true), RACES);
}

#[test]
fn without_the_generation_in_the_key_the_same_check_fails() {
    let stale = std::panic::catch_unwind(|| check_random(|| readers_and_a_publisher(false), RACES));
    assert!(stale.is_err(), "invalidating alone must be caught, or the check above proves nothing");
}
