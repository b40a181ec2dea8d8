//! The test bed: a PostgreSQL, and services on databases of their own.

use std::{ffi::OsStr, fs, ops::Deref, time::Duration};

use crate::{Result, cluster::Cluster, service::Service};

/// The unit of /proc/PID/stat, which is the same on every Linux machine.
const TICK: Duration = Duration::from_millis(10);

/// The PostgreSQL.
pub struct Stage {
    cluster: Cluster,
    /// The process id of the postmaster, if it is known.
    postmaster: Option<u32>,
}

impl Deref for Stage {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// A service with its database.
pub struct Served {
    /// The process.
    pub service: Service,
    /// The name of its database.
    pub database: &'static str,
}

/// CPU time used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTime {
    /// That of the service.
    pub service: Duration,
    /// That of PostgreSQL.
    pub postgres: Duration,
}

impl Stage {
    /// Starts a PostgreSQL with the production settings.
    pub async fn open() -> Result<Self> {
        let cluster = Cluster::open(&[]).await?;
        let lock = fs::read_to_string(cluster.path("data/cluster/postmaster.pid"));
        let id = lock.ok().and_then(|text| text.lines().next()?.parse().ok());
        Ok(Stage {
            cluster,
            postmaster: id,
        })
    }

    /// Starts a service on a new database.
    pub async fn serve(&self, database: &'static str) -> Result<Served> {
        self.create(database).await?;
        let url = self.url(database);
        let arguments = ["--migrate", "--database-url", &url].map(OsStr::new);
        Ok(Served {
            service: Service::start(&arguments).await?,
            database,
        })
    }

    /// Returns the CPU time that a service and PostgreSQL have used so far; zero on systems without
    /// /proc.
    pub fn cpu_time(&self, served: &Served) -> CpuTime {
        CpuTime {
            service: served.service.cpu_time().unwrap_or_default(),
            postgres: self.postmaster.and_then(family_time).unwrap_or_default(),
        }
    }

    /// Stops PostgreSQL, waits for its end, and removes everything.
    pub async fn close(self) -> Result<()> {
        self.cluster.close().await
    }
}

impl CpuTime {
    /// Returns the share of one core that was used since `before`, in percent, as text: that of the
    /// service and that of PostgreSQL.
    pub fn percent_since(&self, before: CpuTime, time: Duration) -> String {
        let percent =
            |now: Duration, before| 100.0 * now.saturating_sub(before).div_duration_f64(time);
        format!(
            "{:.1} %, {:.1} %",
            percent(self.service, before.service),
            percent(self.postgres, before.postgres)
        )
    }
}

/// Returns the CPU time of a process, its children, and those that have ended.
fn family_time(parent: u32) -> Option<Duration> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name may contain spaces, so fields are counted after it.
        let Some((head, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        let id = head.split(' ').next();
        let fields: Vec<u64> = fields
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let is_parent = id.and_then(|id| id.parse().ok()) == Some(parent);
        let is_child = fields.first() == Some(&u64::from(parent));
        if is_parent || is_child {
            // utime and stime; of the parent also those of children that have ended.
            let times = fields.iter().skip(10).take(if is_parent { 4 } else { 2 });
            ticks += times.sum::<u64>();
        }
    }
    Some(TICK * u32::try_from(ticks).ok()?)
}
