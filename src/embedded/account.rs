//! The user that PostgreSQL runs as. PostgreSQL refuses to run as root, so a service that runs as
//! root gives the cluster to an unprivileged user.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt;

use super::error::EmbeddedError;

/// An unprivileged user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// The user that the programs of PostgreSQL run as.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The effective user id of this process.
    own_uid: u32,
    /// The user to switch to; `None` unless this process runs as root.
    become_user: Option<User>,
}

impl Account {
    /// Chooses the owner of an existing cluster, else `postgres`, else `nobody`.
    pub(super) fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        let own_uid = effective_uid()?;
        let become_user = match own_uid {
            0 => Some(unprivileged_user(cluster)?),
            _ => None,
        };
        Ok(Self {
            own_uid,
            become_user,
        })
    }

    /// Returns the account of this process, for a program that reads its files.
    pub(super) fn of_process() -> Result<Self, EmbeddedError> {
        Ok(Self {
            own_uid: effective_uid()?,
            become_user: None,
        })
    }

    /// Returns the user id that the cluster and the socket directory belong to.
    pub(super) fn uid(&self) -> u32 {
        self.become_user
            .as_ref()
            .map_or(self.own_uid, |user| user.uid)
    }

    /// Returns whether a file with this owner was created by this process or by the server.
    pub(super) fn trusts(&self, uid: u32) -> bool {
        uid == self.own_uid || uid == self.uid()
    }

    /// Makes the user the owner of `path`.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        match &self.become_user {
            Some(user) => chown(path, Some(user.uid), Some(user.gid))
                .map_err(EmbeddedError::io("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// Makes the user the owner of an open file.
    pub(super) fn give_file(&self, file: &File) -> io::Result<()> {
        match &self.become_user {
            Some(user) => fchown(file, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }

    /// Builds a command that runs as the user, independent of the environment.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = &self.become_user {
            command.uid(user.uid).gid(user.gid);
        }
        // PGDATA, PGPORT, PGOPTIONS and the like are meant for other servers.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        // English messages, a time zone that does not depend on the machine, and a working
        // directory that every user can enter.
        command
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Fails if the user has no access to the data directory or to the programs.
    pub(super) async fn require_access(
        &self,
        data_dir: &Path,
        bin_dir: &Path,
    ) -> Result<(), EmbeddedError> {
        const FIRST_CLOSED: &str =
            r#"for path; do test -x "$path" || { printf %s "$path"; exit; }; done"#;
        let Some(user) = &self.become_user else {
            return Ok(());
        };
        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-c", FIRST_CLOSED, "sh"]);
        command
            .args(from_root(data_dir))
            .args(from_root(bin_dir))
            .arg(bin_dir.join("postgres"));
        let closed = run(command, "").await?;
        match closed.as_str() {
            "" => Ok(()),
            path => Err(EmbeddedError::NoAccess {
                path: PathBuf::from(path),
                user: user.name.clone(),
            }),
        }
    }
}

/// Runs `command` with `input` as its standard input. Returns its standard output.
pub(super) async fn run(command: Command, input: &str) -> Result<String, EmbeddedError> {
    let program = PathBuf::from(command.get_program());
    let failed = |error| EmbeddedError::io("run", &program)(error);
    let mut command = tokio::process::Command::from(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A caller that stops waiting must not leave an initdb running.
    let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it reads everything writes the reason to its output.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    let output_text = last_lines(&String::from_utf8_lossy(&text));
    Err(EmbeddedError::Program {
        program,
        status: output.status,
        output: output_text,
    })
}

/// Returns the last lines of a text, which contain the reason of a failure.
pub(super) fn last_lines(text: &str) -> String {
    /// Enough for PostgreSQL's message, detail and hint, and short enough for an error.
    const LINES: usize = 12;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let start = lines.len().saturating_sub(LINES);
    lines.get(start..).unwrap_or_default().join("\n")
}

/// Returns the effective user id. Runs `id`, because the standard library has no portable and safe
/// function for it.
pub(super) fn effective_uid() -> Result<u32, EmbeddedError> {
    let id = Path::new("id");
    let output = Command::new(id)
        .arg("-u")
        .output()
        .map_err(EmbeddedError::io("run", id))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|error| EmbeddedError::io("parse the output of", id)(std::io::Error::other(error)))
}

fn unprivileged_user(cluster: &Path) -> Result<User, EmbeddedError> {
    if let Ok(owned) = fs::metadata(cluster) {
        return match owned.uid() {
            0 => Err(EmbeddedError::OwnedByRoot {
                cluster: cluster.to_owned(),
            }),
            uid => Ok(User {
                name: format!("with the id {uid}"),
                uid,
                gid: owned.gid(),
            }),
        };
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| lookup(&passwd, name))
        .ok_or(EmbeddedError::NoAccount)
}

/// Finds a user in the text of /etc/passwd.
fn lookup(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then(|| User {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

/// Lists the directories from the root down to `path`.
fn from_root(path: &Path) -> Vec<&Path> {
    let mut directories: Vec<&Path> = path.ancestors().collect();
    directories.reverse();
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          # a comment\n\
                          postgresql:x:7:7::/:/bin/sh\n\
                          postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n\
                          broken:x\n";

    #[test]
    fn a_user_is_found_by_its_full_name() {
        let postgres = lookup(PASSWD, "postgres").map(|user| (user.uid, user.gid));
        assert_eq!(postgres, Some((101, 104)));
        assert_eq!(lookup(PASSWD, "nobody"), None);
        assert_eq!(lookup(PASSWD, "broken"), None);
    }

    #[test]
    fn root_is_never_found() {
        assert_eq!(lookup(PASSWD, "root"), None);
    }

    #[test]
    fn a_long_text_is_cut_to_its_last_lines() {
        let text = (0..40).map(|n| format!("line {n}\n")).collect::<String>();
        let kept = last_lines(&text);
        assert!(kept.starts_with("line 28") && kept.ends_with("line 39"));
        assert_eq!(last_lines("one\n"), "one");
    }
}
