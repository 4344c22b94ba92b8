//! Opens connections: to one server, to a cluster, or to the primary that sentinels name.
//!
//! deadpool-redis opens those to one server. Its ways to a cluster and through sentinels take neither timeouts nor socket
//! options, so there the clients below it are used. Every attempt ends within [`CONNECT_TIMEOUT`], or a few times that
//! where several machines are asked, and every question on a connection within the timeout of its purpose.

use std::time::{Duration, Instant};

use deadpool_redis::{
    Connection, Manager, Pool, Runtime,
    redis::{
        self, AsyncConnectionConfig, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult, TlsMode, Value,
        aio::{ConnectionLike, MultiplexedConnection},
        cluster::{ClusterClient, ClusterClientBuilder},
        cluster_async::ClusterConnection,
        cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo},
        sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
    },
};
use futures::future::join_all;
use tokio::sync::Mutex;

use super::config::{Config, Error, Mode, is_tls, socket_options};
use crate::runtime::metrics;

/// A connection to the same or a near zone is made in a few milliseconds, with TLS in some tens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A cluster or a list of sentinels whose first machines are silent is asked this long.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Batches of writes and walks over all names are off the request path, but a silent connection must be noticed.
pub(super) const BULK_TIMEOUT: Duration = Duration::from_secs(1);

/// While nodes disagree about who has a slot, a few more answers than one lead to the wrong node. A caller's timeout ends
/// it earlier.
const CLUSTER_RETRIES: u32 = 16;

/// What a connection is for, which decides how long a question may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Lookups and leases, on the request path.
    Reads,
    /// Everything else.
    Bulk,
}

/// A connection that many may use at once; clones share its socket.
#[derive(Clone)]
pub(super) enum Line {
    /// To one server.
    Node(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Line {
    /// One command and its answer.
    pub async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Node(node) => command.query_async(node).await,
            Self::Cluster(cluster) => command.query_async(cluster).await,
        }
    }

    /// Many commands, each with its own answer: in one write to one server, at once but each by itself in a cluster, where
    /// they belong to several nodes.
    pub async fn ask_all(&mut self, commands: &[Cmd]) -> Vec<RedisResult<Value>> {
        match self {
            Self::Node(node) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                match node.req_packed_commands(&pipeline, 0, commands.len()).await {
                    Ok(answers) => answers.into_iter().map(Value::extract_error).collect(),
                    Err(error) => vec![Err(error); commands.len()],
                }
            }
            Self::Cluster(cluster) => {
                let asking = commands.iter().map(|command| {
                    let mut cluster = cluster.clone();
                    async move { command.query_async(&mut cluster).await }
                });
                join_all(asking).await
            }
        }
    }

    /// The same lines to the nodes that hold the names, each with a way to ask it alone: one for a single server.
    pub async fn primaries(&mut self) -> RedisResult<Vec<Primary>> {
        let Self::Cluster(cluster) = self else { return Ok(vec![Primary(None)]) };
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let answers = cluster.route_command(redis::cmd("PING"), everywhere).await?;
        let answers: Vec<(String, Value)> = redis::from_redis_value(answers)?;
        let address = |(text, _): (String, Value)| {
            let (host, port) = text.rsplit_once(':')?;
            Some(Primary(Some((host.to_owned(), port.parse().ok()?))))
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// One command to one node, whatever names it holds.
    pub async fn ask_primary(&mut self, primary: &Primary, command: Cmd) -> RedisResult<Value> {
        match (self, &primary.0) {
            (Self::Cluster(cluster), Some((host, port))) => {
                let node = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                cluster.route_command(command, RoutingInfo::SingleNode(node)).await?.extract_error()
            }
            (line, _) => line.ask(&command).await,
        }
    }
}

/// A node that holds names: its host and port within a cluster, nothing where there is only one.
pub(super) struct Primary(Option<(String, u16)>);

/// The way to Redis.
pub(super) enum Connector {
    Single(Pool),
    Cluster { reads: Box<ClusterClient>, bulk: Box<ClusterClient> },
    Sentinel { client: Box<Mutex<SentinelClient>>, connection: AsyncConnectionConfig },
}

impl Connector {
    /// Opens nothing yet.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let addresses = config.addresses()?;
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(config.timeout));
        let unusable = |error: RedisError| Error::new("redis_url", error.category().to_owned());
        match config.mode {
            Mode::Single => {
                let [address] = <[ConnectionInfo; 1]>::try_from(addresses)
                    .map_err(|_| Error::new("redis_url", "redis_mode single needs one address"))?;
                let manager = Manager::new_with_config(address, connection).map_err(unusable)?;
                let pool = Pool::builder(manager)
                    .max_size(config.connections)
                    .runtime(Runtime::Tokio1)
                    .wait_timeout(Some(CONNECT_TIMEOUT))
                    .create_timeout(Some(CONNECT_TIMEOUT))
                    .recycle_timeout(Some(CONNECT_TIMEOUT))
                    .build()
                    .map_err(|error| Error::new("redis_connections", error.to_string()))?;
                Ok(Self::Single(pool))
            }
            Mode::Cluster => Ok(Self::Cluster {
                reads: Box::new(cluster(addresses.clone(), config.timeout).map_err(unusable)?),
                bulk: Box::new(cluster(addresses, BULK_TIMEOUT).map_err(unusable)?),
            }),
            Mode::Sentinel => {
                let client = Box::new(Mutex::new(sentinel(config, addresses).map_err(unusable)?));
                Ok(Self::Sentinel { client, connection })
            }
        }
    }

    /// A new connection.
    ///
    /// # Cancel safety
    /// Safe: a connection that is half made is closed.
    pub async fn open(&self, purpose: Purpose) -> RedisResult<Line> {
        let started = Instant::now();
        let opened = tokio::time::timeout(DISCOVER_TIMEOUT, self.open_now(purpose)).await;
        metrics::record_pool_acquire("redis", started.elapsed());
        opened.unwrap_or_else(|_| Err((ErrorKind::Io, "no connection in time").into()))
    }

    async fn open_now(&self, purpose: Purpose) -> RedisResult<Line> {
        let mut node = match self {
            // Taken for good: a connection that went back would be asked for a sign of life at each use.
            Self::Single(pool) => Connection::take(pool.get().await.map_err(pool_error)?),
            Self::Sentinel { client, connection } => {
                client.lock().await.get_async_connection_with_config(connection).await?
            }
            Self::Cluster { reads, bulk } => {
                let client = if purpose == Purpose::Reads { reads } else { bulk };
                return client.get_async_connection().await.map(Line::Cluster);
            }
        };
        if purpose == Purpose::Bulk {
            node.set_response_timeout(BULK_TIMEOUT);
        }
        Ok(Line::Node(node))
    }
}

fn pool_error(error: deadpool_redis::PoolError) -> RedisError {
    match error {
        deadpool_redis::PoolError::Backend(error) => error,
        other => (ErrorKind::Io, "no connection", other.to_string()).into(),
    }
}

fn cluster(addresses: Vec<ConnectionInfo>, timeout: Duration) -> RedisResult<ClusterClient> {
    ClusterClientBuilder::new(addresses)
        .connection_timeout(CONNECT_TIMEOUT)
        // Of one node's answer, also while its map of the cluster is read; a caller waits no longer than the second one.
        .response_timeout(BULK_TIMEOUT)
        .overall_response_timeout(Some(timeout))
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(1)
        .max_retry_wait(10)
        .tcp_settings(socket_options())
        .build()
}

/// User, password and database of the first address are those of the servers. Sentinels have a password of their own.
fn sentinel(config: &Config, addresses: Vec<ConnectionInfo>) -> RedisResult<SentinelClient> {
    let servers = addresses.first().map(|first| first.redis_settings().clone()).unwrap_or_default();
    let mut node =
        SentinelNodeConnectionInfo::default().set_redis_connection_info(servers).set_tcp_settings(socket_options());
    if addresses.first().is_some_and(is_tls) {
        node = node.set_tls_mode(TlsMode::Secure);
    }
    let asked = addresses.into_iter().map(|address| {
        let settings = redis::RedisConnectionInfo::default();
        let settings = match config.sentinel_password.as_str() {
            "" => settings,
            password => settings.set_password(password),
        };
        address.set_redis_settings(settings)
    });
    SentinelClient::build(asked.collect(), &config.sentinel_master, Some(node), SentinelServerType::Master)
}
