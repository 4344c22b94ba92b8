//! Things that one caller uses at a time and that a panic may leave broken: model sessions.
//!
//! A thing is taken, used and put back. One whose use panicked is thrown away, the panic becomes an error, and the next
//! user who finds the pool empty builds a new one. There are never more things than users at the same time.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use super::Error;

/// Idle things, and how to build one.
pub(super) struct Pool<T> {
    idle: Mutex<Vec<T>>,
    build: Box<dyn Fn() -> Result<T, Error> + Send + Sync>,
}

impl<T> Pool<T> {
    /// A pool with `count` things built.
    ///
    /// # Errors
    /// When one cannot be built.
    pub fn new(count: usize, build: impl Fn() -> Result<T, Error> + Send + Sync + 'static) -> Result<Self, Error> {
        let idle = (0..count).map(|_| caught(&build)).collect::<Result<_, _>>()?;
        Ok(Self { idle: Mutex::new(idle), build: Box::new(build) })
    }

    /// Lends one thing to `work`.
    ///
    /// # Errors
    /// What `work` said, its panic, or why no thing could be built.
    pub fn lend<R>(&self, work: impl FnOnce(&mut T) -> Result<R, Error>) -> Result<R, Error> {
        let taken = self.lock().pop();
        let mut thing = taken.map_or_else(|| caught(&self.build), Ok)?;
        match catch_unwind(AssertUnwindSafe(|| work(&mut thing))) {
            Ok(result) => {
                self.lock().push(thing);
                result
            }
            Err(panic) => {
                // What broke in use may break in its destructor too.
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(thing)));
                tracing::error!(
                    reason = message(&*panic),
                    clean = dropped.is_ok(),
                    "model session panicked; rebuilding"
                );
                Err(Error::Model(format!("it panicked: {}", message(&*panic))))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `build`; a panic in foreign code is an error with its words.
pub(super) fn caught<T>(build: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(build))
        .unwrap_or_else(|panic| Err(Error::Load(format!("it panicked: {}", message(&*panic)))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn a_thing_that_panicked_is_replaced() {
        let built = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&built);
        let pool = Pool::new(1, move || Ok(count.fetch_add(1, Ordering::SeqCst))).unwrap();
        assert_eq!(pool.lend(|thing| Ok(*thing)), Ok(0));
        let panicked: Result<(), _> = pool.lend(|_| panic!("a bad {}", "tensor"));
        assert_eq!(panicked, Err(Error::Model("it panicked: a bad tensor".to_owned())));
        assert_eq!(pool.lend(|thing| Ok(*thing)), Ok(1));
        let failed: Result<(), _> = pool.lend(|_| Err(Error::Empty));
        assert_eq!(failed, Err(Error::Empty));
        assert_eq!((pool.lend(|thing| Ok(*thing)), built.load(Ordering::SeqCst)), (Ok(1), 2));
    }

    #[test]
    fn what_cannot_be_built_says_why() {
        let pool = Pool::<u32>::new(1, || panic!("no library"));
        assert_eq!(pool.err(), Some(Error::Load("it panicked: no library".to_owned())));
    }
}
