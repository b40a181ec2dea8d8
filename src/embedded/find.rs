//! Finds an installation of PostgreSQL on this machine.

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

/// The major versions that bridgebook is tested with.
const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;

/// The programs that make a directory an installation of the server.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Where packages install the programs: a directory, the prefix of its versioned subdirectories,
/// and the path below them.
const VERSIONED_DIRS: [(&str, &str, &str); 8] = [
    ("/usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                   // Fedora, RHEL: packages of postgresql.org
    ("/usr/lib", "postgresql", "bin"),           // openSUSE
    ("/usr/libexec", "postgresql", ""),          // Alpine
    ("/opt/homebrew/opt", "postgresql@", "bin"), // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql@", "bin"),    // Homebrew on Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// Directories without a version in the path: Fedora, Arch, and builds from source.
const PLAIN_DIRS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"];

/// An installation of PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    pub(super) bin_dir: PathBuf,
    /// The version as the server prints it, for example `15.18`.
    pub(super) version: String,
    pub(super) major: u32,
}

/// Finds the first installation that can run the cluster. Searches PATH, then the directories of
/// packages from the newest version to the oldest, then earlier downloads. `bin_dir` restricts the
/// search to one directory, `cluster_major` to the version that can read the cluster.
pub(super) fn find(
    bin_dir: Option<&Path>,
    data_dir: &Path,
    cluster_major: Option<u32>,
) -> Result<Installation, EmbeddedError> {
    let fits = |found: &Installation| match cluster_major {
        Some(major) => found.major == major,
        None => SUPPORTED.contains(&found.major),
    };
    let candidates: Box<dyn Iterator<Item = PathBuf>> = match bin_dir {
        Some(bin_dir) => Box::new(std::iter::once(bin_dir.to_owned())),
        None => Box::new(candidates(data_dir)),
    };
    let mut unfit = Vec::new();
    for installation in candidates.filter_map(|dir| probe(&dir)) {
        if fits(&installation) {
            return Ok(installation);
        }
        let seen = format!(
            "{} in {}",
            installation.version,
            installation.bin_dir.display()
        );
        if !unfit.contains(&seen) {
            unfit.push(seen);
        }
    }
    let place = bin_dir.map(|dir| format!(" in {}", dir.display()));
    let others = (!unfit.is_empty()).then(|| format!(", only {}", unfit.join(", ")));
    Err(not_found(
        cluster_major,
        &[place, others].into_iter().flatten().collect::<String>(),
    ))
}

/// Finds the newest supported installation with a major version above `major`. Runs `postgres` of every
/// installation on this machine.
pub(super) fn newer(data_dir: &Path, major: u32) -> Option<Installation> {
    candidates(data_dir)
        .filter_map(|dir| probe(&dir))
        .filter(|found| found.major > major && SUPPORTED.contains(&found.major))
        .min_by_key(|found| Reverse(found.major))
}

/// Returns the error that says what to install. `found` lists what was found instead.
fn not_found(cluster_major: Option<u32>, found: &str) -> EmbeddedError {
    let (first, last) = (SUPPORTED.start(), SUPPORTED.end());
    let (wanted, apt) = match cluster_major {
        Some(major) => (
            format!("PostgreSQL {major}, which created the data directory,"),
            format!("postgresql-{major}"),
        ),
        None => (
            format!("PostgreSQL {first} to {last}"),
            "postgresql".to_owned(),
        ),
    };
    let brew = cluster_major.unwrap_or(*last);
    EmbeddedError::NoInstallation {
        wanted,
        found: found.to_owned(),
        apt,
        brew,
    }
}

/// Yields the directories to search, lazily, because the first one nearly always fits.
fn candidates(data_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let versioned = VERSIONED_DIRS
        .iter()
        .flat_map(|(parent, prefix, below)| newest_first(Path::new(parent), prefix, below));
    on_path("postgres")
        .filter_map(|postgres| Some(postgres.canonicalize().ok()?.parent()?.to_owned()))
        .chain(on_path("pg_config").filter_map(|pg_config| bindir_of(&pg_config)))
        .chain(versioned)
        .chain(PLAIN_DIRS.iter().map(PathBuf::from))
        .chain(newest_first(data_dir, "postgresql-", "bin"))
}

/// Yields the programs with this name on PATH.
fn on_path(name: &'static str) -> impl Iterator<Item = PathBuf> {
    let directories: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    directories
        .into_iter()
        // A relative entry would make the choice depend on the working directory.
        .filter(|directory| directory.is_absolute())
        .map(move |directory| directory.join(name))
        .filter(|program| program.is_file())
}

fn bindir_of(pg_config: &Path) -> Option<PathBuf> {
    let output = Command::new(pg_config).arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Lists `parent/prefix<version>/below`, the newest version first.
fn newest_first(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let version = version_key(name.to_str()?.strip_prefix(prefix)?)?;
            Some((version, parent.join(name).join(below)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// Parses `18.1.0` as numbers, so that 10 sorts after 9.
fn version_key(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// Returns the installation in `bin_dir`, or `None` if it is incomplete or does not run.
pub(super) fn probe(bin_dir: &Path) -> Option<Installation> {
    if !PROGRAMS
        .iter()
        .all(|program| bin_dir.join(program).is_file())
    {
        return None;
    }
    let output = Command::new(bin_dir.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let (version, major) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
    Some(Installation {
        bin_dir: bin_dir.to_owned(),
        version,
        major,
    })
}

/// Parses `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`. `18beta1` has the major version 18.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let (_, after) = text.split_once("(PostgreSQL) ")?;
    let version = after.split_whitespace().next()?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    let major = version.get(..digits)?.parse().ok()?;
    Some((version.to_owned(), major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_strings_of_packages_are_parsed() {
        let parse = |text| parse_version(text).map(|(version, major)| format!("{version}/{major}"));
        assert_eq!(
            parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(),
            Some("15.18/15")
        );
        assert_eq!(
            parse("postgres (PostgreSQL) 18.1\n").as_deref(),
            Some("18.1/18")
        );
        assert_eq!(
            parse("postgres (PostgreSQL) 18beta1").as_deref(),
            Some("18beta1/18")
        );
        assert_eq!(
            parse("postgres (PostgreSQL) 9.6.24").as_deref(),
            Some("9.6.24/9")
        );
        assert_eq!(parse("postgres (EnterpriseDB) 15.1"), None);
        assert_eq!(parse("postgres (PostgreSQL) devel"), None);
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(version_key("10") > version_key("9.6"));
        assert!(version_key("18.10.0") > version_key("18.9.0"));
        assert_eq!(version_key("latest"), None);
        assert_eq!(version_key(""), None);
    }

    #[test]
    fn the_error_says_what_to_install() {
        let text = not_found(None, "").to_string();
        assert!(
            text.starts_with("no PostgreSQL 14 to 18 was found; install it"),
            "{text}"
        );
        assert!(
            text.contains("`apt-get install postgresql`") && text.contains("--database-url"),
            "{text}"
        );
        let text = not_found(Some(16), ", only 15.18 in /usr/lib/postgresql/15/bin").to_string();
        assert!(text.contains("was found, only 15.18 in /usr"), "{text}");
        assert!(
            text.contains("`apt-get install postgresql-16`") && text.contains("postgresql@16"),
            "{text}"
        );
    }
}
