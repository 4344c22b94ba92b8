//! How many searches a second a server answers: closed load, a thread for each client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Failure, http::Client};

/// Searches a second by so many connections for so long, going round `paths`.
pub fn throughput(
    address: SocketAddr,
    paths: &Arc<Vec<String>>,
    connections: usize,
    time: Duration,
) -> Result<f64, Failure> {
    let (ended, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|first| {
            let (ended, asked, paths) = (Arc::clone(&ended), Arc::clone(&asked), Arc::clone(paths));
            std::thread::spawn(move || -> Result<(), Failure> {
                let mut client = Client::connect(address)?;
                for nth in (first * 7).. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    client.get(&paths[nth % paths.len()])?;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    std::thread::sleep(time);
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| "a client panicked")??;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let asked = asked.load(Ordering::Relaxed) as f64;
    Ok(asked / started.elapsed().as_secs_f64())
}
