//! Who is let in before whom.

use super::*;

/// A limit that does not move.
fn gate(limit: usize) -> Gate {
    Gate::new(Config { most: limit, least: limit, ..Config::default() })
}

fn enter(gate: &Gate, class: Class, times: usize) -> Vec<Permit> {
    (0..times).map_while(|_| gate.enter(class).ok()).collect()
}

#[test]
fn each_class_finds_room_until_its_share_is_in_use_by_all() {
    let gate = gate(16);
    let imports = enter(&gate, Class::Import, 20);
    assert_eq!(imports.len(), 4);
    let batch = enter(&gate, Class::Batch, 20);
    assert_eq!(batch.len(), 4, "with the imports half of the limit is in use");
    let interactive = enter(&gate, Class::Interactive, 20);
    assert_eq!((interactive.len(), gate.in_use()), (8, 16));
    let refused = gate.enter(Class::Interactive).map(drop);
    assert_eq!(refused, Err(Refused { class: Class::Interactive, in_use: 16 }));
    drop(interactive);
    assert!(gate.enter(Class::Batch).is_err(), "its share is still in use");
    drop(imports);
    assert!(gate.enter(Class::Batch).is_ok());
    drop(batch);
    assert_eq!(gate.in_use(), 0);
}

#[test]
fn at_rest_one_of_every_class_is_let_in() {
    let gate = gate(1);
    for class in Class::ALL {
        let permit = gate.enter(class).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(gate.enter(Class::Interactive).is_err());
        permit.finish(Outcome::Done);
    }
}

#[test]
fn a_place_is_free_again_however_the_work_ends() {
    let gate = gate(2);
    for outcome in [Outcome::Done, Outcome::Late, Outcome::Failed] {
        gate.enter(Class::Interactive).unwrap_or_else(|refused| panic!("{refused}")).finish(outcome);
    }
    let held = gate.enter(Class::Interactive);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permit = gate.enter_uncounted(Class::Interactive);
        panic!("the work fails");
    }));
    assert!(panicked.is_err());
    assert_eq!(gate.in_use(), 1);
    drop(held);
    assert_eq!(gate.in_use(), 0);
}

#[test]
fn many_threads_never_use_more_than_the_limit() {
    let gate = gate(5);
    let most = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (gate, most) = (&gate, &most);
            scope.spawn(move || {
                for nth in 0..2_000 {
                    if let Ok(permit) = gate.enter(Class::ALL[(thread + nth) % 3]) {
                        most.fetch_max(gate.in_use(), std::sync::atomic::Ordering::Relaxed);
                        permit.finish(Outcome::Done);
                    }
                }
            });
        }
    });
    assert_eq!(gate.in_use(), 0);
    assert!((1..=5).contains(&most.into_inner()));
}
