//! Bringing the server up: find it, or make it, start it and wait until it lets us in.
//!
//! Everything here happens under the control lock. A start that fails says what the server wrote and leaves nothing
//! running, except a server that still recovers after five minutes.

use std::time::{Duration, SystemTime};

use tokio::{
    io::AsyncReadExt,
    process::Child,
    time::{Instant, sleep},
};

use super::{
    Cluster, PROGRESS,
    control::{self, Programs},
    create,
    error::{Error, at},
    locks::Control,
    postmaster,
    probe::{self, Answer},
};

/// The database that initdb makes, from which ours is created.
const FIRST_DATABASE: &str = "postgres";

/// The first pause between two questions to a server that starts; it takes 50 to 100 ms when all is well.
const ASK_PAUSE: Duration = Duration::from_millis(10);

/// The longest such pause: recovery takes seconds, and each refused question is a line in its log.
const ASK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// What Postgres says while processes of a killed server are still at work.
const ORPHANS: &str = "pre-existing shared memory block";

/// They notice and leave by themselves, except in the middle of a long statement: then they are told to.
const ORPHANS_GRACE: Duration = Duration::from_secs(2);

/// Told to, they leave at once; a minute covers a disk that hangs.
const ORPHANS_PATIENCE: Duration = Duration::from_mins(1);

/// File times may lag the clock by the kernel's tick, at most 10 ms.
const FILE_TIME_LAG: Duration = Duration::from_millis(50);

impl Cluster {
    /// Makes the server answer; returns whether it had to be started.
    pub(super) async fn bring_up(&self, _control: &Control) -> Result<bool, Error> {
        if let Some(database_exists) = self.await_answer(None, SystemTime::now()).await? {
            self.create_database(database_exists).await?;
            return Ok(false);
        }
        let programs = Programs::find(&self.config.postgres_dir, &self.account)?;
        self.prepare(&programs).await?;
        let launched = match self.launch(&programs).await {
            Ok(database_exists) => self.create_database(database_exists).await,
            Err(error) => Err(error),
        };
        if let Err(error) = launched {
            // One that still recovers is left to it.
            if !matches!(error, Error::StillStarting { .. }) && self.lives().await {
                let _ = self.stop().await;
            }
            return Err(error);
        }
        Ok(true)
    }

    /// Makes everything that the server needs to start.
    async fn prepare(&self, programs: &Programs) -> Result<(), Error> {
        let Self { config, layout, account, .. } = self;
        account.private_directory(&layout.log)?;
        account.private_directory(&layout.socket)?;
        create::remove_leftovers(layout)?;
        if layout.data.exists() {
            programs.check_version(account, layout).await?;
        } else {
            tracing::info!(data = %layout.data.display(), "making the embedded database");
            create::data_directory(programs, account, layout, &self.password).await?;
            // Once more, for those whose last processes were just being killed.
            create::remove_leftovers(layout)?;
        }
        create::settings_file(config, account, layout)?;
        postmaster::clear(layout, account)
    }

    /// Starts the server and waits until it answers; returns whether our database exists.
    async fn launch(&self, programs: &Programs) -> Result<bool, Error> {
        let begun = Instant::now();
        loop {
            let tried = SystemTime::now() - FILE_TIME_LAG;
            // What it says before its own log is open; the last start's does not matter any more.
            let _ = std::fs::remove_file(&self.layout.early_log);
            let starter = programs.start(&self.account, &self.layout)?;
            let tail = match self.await_answer(Some(starter), tried).await {
                Ok(Some(database_exists)) => return Ok(database_exists),
                Ok(None) => control::log_tail(&self.layout, tried),
                Err(Error::Start { tail, .. }) => tail,
                Err(error) => return Err(error),
            };
            if !tail.contains(ORPHANS) || begun.elapsed() > ORPHANS_PATIENCE {
                return Err(Error::Start { log: self.layout.log.clone(), tail });
            }
            tracing::info!("waiting for processes of the killed Postgres to leave");
            if begun.elapsed() > ORPHANS_GRACE {
                for pid in postmaster::orphans(&self.layout) {
                    // It may have left in between.
                    let _ = programs.quit(&self.account, &self.layout, pid).await;
                }
            }
            sleep(ASK_PAUSE_MAX).await;
        }
    }

    /// Waits until the server lets us in and returns whether our database exists, or nothing when there is no server.
    /// `starter` is the program that is starting it since `begun`, if any is.
    async fn await_answer(&self, mut starter: Option<Child>, begun: SystemTime) -> Result<Option<bool>, Error> {
        let options = self.connect_options();
        let since = Instant::now();
        let (mut told, mut pause) = (since, ASK_PAUSE);
        loop {
            let state = match probe::ask(&options).await? {
                Answer::Ready => return Ok(Some(true)),
                Answer::NoDatabase => return Ok(Some(false)),
                Answer::NotYet(said) => said,
                Answer::Silent => {
                    // Asked in this order: one that ended after having started the server has left it alive.
                    let starting = self.is_starting(starter.as_mut(), begun).await?;
                    if !starting && postmaster::find(&self.layout, &self.account).is_none() {
                        return Ok(None);
                    }
                    String::from("it does not listen yet")
                }
            };
            if since.elapsed() > control::START_PATIENCE {
                let (seconds, log) = (control::START_PATIENCE.as_secs(), self.layout.log.clone());
                return Err(Error::StillStarting { seconds, log });
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                tracing::info!(waited = since.elapsed().as_secs(), state, "waiting for the embedded Postgres");
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(ASK_PAUSE_MAX);
        }
    }

    /// Whether `starter` is at work.
    ///
    /// # Errors
    /// [`Error::Start`] when it has failed, with what it and the server wrote.
    async fn is_starting(&self, starter: Option<&mut Child>, begun: SystemTime) -> Result<bool, Error> {
        let Some(starter) = starter else { return Ok(false) };
        let Some(status) = starter.try_wait().map_err(at("wait for", &self.config.postgres_dir))? else {
            return Ok(true);
        };
        // It also gives up when the server takes too long; that one lives and is waited for elsewhere.
        if status.success() || postmaster::find(&self.layout, &self.account).is_some() {
            return Ok(false);
        }
        let mut said = String::new();
        if let Some(mut output) = starter.stderr.take() {
            // Without its words there are still those of the server.
            let _ = output.read_to_string(&mut said).await;
        }
        let tail = format!("{}\n{}", said.trim(), control::log_tail(&self.layout, begun));
        Err(Error::Start { log: self.layout.log.clone(), tail: tail.trim().to_owned() })
    }

    async fn create_database(&self, exists: bool) -> Result<(), Error> {
        if exists { Ok(()) } else { create::database(&self.options(FIRST_DATABASE), &self.config.database).await }
    }
}
