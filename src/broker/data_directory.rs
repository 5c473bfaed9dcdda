//! The data directory: whose it is, which format it has, and where things lie in it.
//!
//! ```text
//! LOCK            flock + pid: one process at a time
//! corelane.toml   format = 1, node, cluster: written once, when the directory is made
//! meta/           the metadata log
//! p/<topic>-<partition>.<first 8 of the topic id>/   one partition's segments and checkpoints
//! trash/          deleted partitions on their way out
//! lost/           directories that no topic explains: kept for a person to look at
//! ```
//! A directory of another node or of a newer format is refused before anything in it is touched. One that is locked is tried
//! again for two seconds, with one line in the log: the lock of a killed process is held until its last write is over.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::info;

use crate::runtime::directory::{self, EntryKind, Lock};
use crate::runtime::{Duration, Instant, random_u128, sleep};
use crate::types::{BrokerId, ClusterId, PartitionId, TopicId, TopicName};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// Bytes of `corelane.toml` at most; it has three lines.
const IDENTITY_BYTES_MAX: usize = 4096;
/// How long a directory may be locked before that is an error: the start of a second process on it takes this much longer
/// to fail.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Directories of partitions that `trash` or `lost` may hold under the same name before a person has to look.
const SAME_NAME_MAX: u32 = 10_000;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirectoryError {
    /// Another process has it.
    #[error("{path}: in use by the process with pid {holder}")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the other process wrote into its lock.
        holder: String,
    },
    /// The system refused something.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It was written by a newer version.
    #[error("{path}: format {found} was written by a newer version; this one reads format {FORMAT}")]
    Newer {
        /// The identity file.
        path: PathBuf,
        /// The format in it.
        found: u32,
    },
    /// It belongs to another node.
    #[error("{path}: belongs to node {found}, and this is node {node} (--node-id)")]
    OtherNode {
        /// The identity file.
        path: PathBuf,
        /// The node in it.
        found: i32,
        /// This node.
        node: BrokerId,
    },
    /// The identity file is not one.
    #[error("{path}: {reason}")]
    Identity {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It holds partitions but no identity.
    #[error("{path}: holds data but no corelane.toml; restore that file, or name another directory")]
    NoIdentity {
        /// The directory.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    node: i32,
    cluster: String,
}

/// The name of a partition's directory: a person can read it, and the topic id keeps two topics of one name apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PartitionDirectory {
    name: String,
}

impl PartitionDirectory {
    /// The directory of this partition.
    pub fn new(name: &TopicName, topic: TopicId, partition: PartitionId) -> PartitionDirectory {
        let id = topic.to_string();
        PartitionDirectory { name: format!("{name}-{partition}.{}", &id[..8]) }
    }

    /// Whether it is the directory of a partition of this topic.
    pub fn is_of(&self, name: &TopicName, topic: TopicId) -> bool {
        let id = topic.to_string();
        let index = self.name.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let index = index.and_then(|rest| rest.strip_suffix(&id[..8])).and_then(|rest| rest.strip_suffix('.'));
        index.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
    }
}

impl fmt::Display for PartitionDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// An open data directory: who holds its lock has it for this process. Clones are the same.
#[derive(Clone)]
pub struct DataDirectory {
    root: PathBuf,
    node: BrokerId,
    cluster: ClusterId,
    is_new: bool,
}

impl DataDirectory {
    /// Opens the directory `root` for `node`, and locks it as long as the lock is held. If there is none it is begun, with a
    /// fresh cluster id, and finished by [`DataDirectory::keep_identity`]; a start that was interrupted in between begins again.
    pub async fn open(root: &Path, node: BrokerId) -> Result<(DataDirectory, Lock), DataDirectoryError> {
        create_all(root).await?;
        let lock = lock(root).await?;
        let identity_path = root.join("corelane.toml");
        let (cluster, is_new) = match directory::read(&identity_path, IDENTITY_BYTES_MAX).await {
            Ok(text) => (check_identity(&identity_path, &text, node)?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_data(root).await?;
                (ClusterId::from_random(random_u128()), true)
            }
            Err(source) => return Err(DataDirectoryError::Io { path: identity_path, action: "read", source }),
        };
        for name in ["meta", "p", "trash", "lost"] {
            create(&root.join(name)).await?;
        }
        sync(root).await?;
        Ok((DataDirectory { root: root.to_path_buf(), node, cluster, is_new }, lock))
    }

    /// Whether it is being made: it has no identity until [`DataDirectory::keep_identity`].
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Ends the making of a new directory: from here on its metadata log is expected to be there.
    pub async fn keep_identity(&self) -> Result<(), DataDirectoryError> {
        let path = self.root.join("corelane.toml");
        let identity = Identity { format: FORMAT, node: self.node.value(), cluster: self.cluster.to_string() };
        let text = toml::to_string(&identity).expect("three plain values are TOML");
        let replaced = directory::replace(&path, text.as_bytes()).await;
        replaced.map_err(|source| DataDirectoryError::Io { path, action: "write", source })
    }

    /// The cluster that this directory belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the metadata log lies.
    pub fn metadata(&self) -> PathBuf {
        self.root.join("meta")
    }

    /// Where all partitions lie.
    pub fn partitions(&self) -> PathBuf {
        self.root.join("p")
    }

    /// Where one partition lies.
    pub fn partition(&self, partition: &PartitionDirectory) -> PathBuf {
        self.root.join("p").join(&partition.name)
    }

    /// The names of all partition directories that are there.
    pub async fn list_partitions(&self) -> Result<Vec<PartitionDirectory>, DataDirectoryError> {
        let entries = list(&self.partitions()).await?;
        let directories = entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
        Ok(directories.map(|entry| PartitionDirectory { name: entry.name }).collect())
    }

    /// Moves a deleted partition out of the way, durably. Its space is freed by [`DataDirectory::empty_trash`].
    pub async fn discard(&self, partition: &PartitionDirectory) -> Result<(), DataDirectoryError> {
        self.move_aside(partition, "trash").await.map(drop)
    }

    /// Keeps a directory that no topic explains, out of the way, and returns where it is now.
    pub async fn quarantine(&self, partition: &PartitionDirectory) -> Result<PathBuf, DataDirectoryError> {
        self.move_aside(partition, "lost").await
    }

    async fn move_aside(&self, partition: &PartitionDirectory, place: &str) -> Result<PathBuf, DataDirectoryError> {
        let (from, place) = (self.partition(partition), self.root.join(place));
        let taken: Vec<String> = list(&place).await?.into_iter().map(|entry| entry.name).collect();
        let free = |name: &String| !taken.contains(name);
        let numbered = (1..SAME_NAME_MAX).map(|number| format!("{}.{number}", partition.name));
        let name = std::iter::once(partition.name.clone()).chain(numbered).find(free).unwrap_or_default();
        let to = place.join(name);
        let moved = directory::rename(&from, &to).await;
        moved.map_err(|source| DataDirectoryError::Io { path: from, action: "move aside", source })?;
        sync(&self.partitions()).await?;
        sync(&place).await?;
        Ok(to)
    }

    /// Removes what lies in `trash`, file by file.
    pub async fn empty_trash(&self) -> Result<(), DataDirectoryError> {
        let trash = self.root.join("trash");
        for discarded in list(&trash).await? {
            let path = trash.join(&discarded.name);
            for file in list(&path).await? {
                let file = path.join(file.name);
                let removed = directory::remove_file(&file).await;
                removed.map_err(|source| DataDirectoryError::Io { path: file, action: "remove", source })?;
            }
            let removed = directory::remove(&path).await;
            removed.map_err(|source| DataDirectoryError::Io { path, action: "remove", source })?;
        }
        sync(&trash).await
    }
}

/// Locks the directory, and waits for a process that is just ending: its lock outlives it until its last write is over.
async fn lock(root: &Path) -> Result<Lock, DataDirectoryError> {
    let path = root.join("LOCK");
    let pid = std::process::id().to_string();
    let deadline = Instant::now().plus(LOCK_PATIENCE);
    let mut told = false;
    loop {
        let held = match directory::lock(&path, &pid).await {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => error,
            Err(source) => return Err(DataDirectoryError::Io { path, action: "lock", source }),
        };
        if Instant::now() >= deadline {
            return Err(DataDirectoryError::Locked { path: root.to_path_buf(), holder: held.to_string() });
        }
        if !std::mem::replace(&mut told, true) {
            info!(directory = %root.display(), holder = %held, "the data directory is locked; it is tried again for 2 s");
        }
        sleep(LOCK_PAUSE).await;
    }
}

async fn create_all(path: &Path) -> Result<(), DataDirectoryError> {
    let mut parents: Vec<&Path> = path.ancestors().filter(|parent| !parent.as_os_str().is_empty()).collect();
    // The nearest one that is there needs no further look upwards.
    let known = {
        let mut known = 0;
        while known < parents.len() && directory::list(parents[known]).await.is_err() {
            known += 1;
        }
        known
    };
    parents.truncate(known);
    for missing in parents.into_iter().rev() {
        create(missing).await?;
        if let Some(parent) = missing.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent).await?;
        }
    }
    Ok(())
}

async fn create(path: &Path) -> Result<(), DataDirectoryError> {
    match directory::create(path).await {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(DataDirectoryError::Io { path: path.to_path_buf(), action: "create", source })
        }
        _ => Ok(()),
    }
}

async fn sync(path: &Path) -> Result<(), DataDirectoryError> {
    let synced = directory::sync(path).await;
    synced.map_err(|source| DataDirectoryError::Io { path: path.to_path_buf(), action: "sync", source })
}

async fn list(path: &Path) -> Result<Vec<directory::Entry>, DataDirectoryError> {
    let entries = directory::list(path).await;
    entries.map_err(|source| DataDirectoryError::Io { path: path.to_path_buf(), action: "list", source })
}

fn check_identity(path: &Path, text: &[u8], node: BrokerId) -> Result<ClusterId, DataDirectoryError> {
    let wrong = |reason: String| DataDirectoryError::Identity { path: path.to_path_buf(), reason };
    let text = std::str::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let identity: Identity = toml::from_str(text).map_err(|error| wrong(error.message().to_string()))?;
    if identity.format > FORMAT {
        return Err(DataDirectoryError::Newer { path: path.to_path_buf(), found: identity.format });
    }
    if identity.format < 1 {
        return Err(wrong(format!("format {} never existed", identity.format)));
    }
    if identity.node != node.value() {
        return Err(DataDirectoryError::OtherNode { path: path.to_path_buf(), found: identity.node, node });
    }
    identity.cluster.parse().map_err(|error| wrong(format!("cluster: {error}")))
}

/// A directory without identity may hold what an interrupted start left, but no partitions.
async fn refuse_data(root: &Path) -> Result<(), DataDirectoryError> {
    let partitions = directory::list(&root.join("p")).await.unwrap_or_default();
    if partitions.is_empty() { Ok(()) } else { Err(DataDirectoryError::NoIdentity { path: root.to_path_buf() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sim::{Simulation, SimulationOptions};
    use crate::types::ShardId;

    const NODE: i32 = 1;

    /// Runs `body` on a fresh simulated node.
    fn on_a_node<T: 'static>(body: impl Future<Output = T> + 'static) -> T {
        let simulation = Simulation::new(1, SimulationOptions::default());
        let node = simulation.add_node(1);
        simulation.run_on(node, ShardId(0), body).expect("it ends").expect("nobody killed the node")
    }

    fn broker(node: i32) -> BrokerId {
        BrokerId::new(node).expect("not negative")
    }

    fn name(name: &str) -> TopicName {
        TopicName::new(name).expect("legal")
    }

    async fn open(node: i32) -> Result<(DataDirectory, Lock), DataDirectoryError> {
        DataDirectory::open(Path::new("/deep/data"), broker(node)).await
    }

    #[test]
    fn the_identity_is_kept_and_checked() {
        on_a_node(async {
            let (fresh, lock) = open(NODE).await.expect("made");
            assert!(fresh.is_new());
            let begun = Instant::now();
            let held = open(NODE).await.err().expect("locked");
            let waited = Instant::now().since(begun);
            assert!(waited >= LOCK_PATIENCE && waited < LOCK_PATIENCE * 2, "{waited:?}");
            assert!(matches!(&held, DataDirectoryError::Locked { holder, .. } if !holder.is_empty()), "{held}");
            fresh.keep_identity().await.expect("kept");
            let cluster = fresh.cluster();
            drop(lock);

            let (again, lock) = open(NODE).await.expect("it is there");
            assert!(!again.is_new());
            assert_eq!(again.cluster(), cluster);
            drop(lock);
            assert!(matches!(open(2).await.err(), Some(DataDirectoryError::OtherNode { found: NODE, .. })));

            let identity = Path::new("/deep/data/corelane.toml");
            for (text, newer) in
                [("format = 2\nnode = 1\ncluster = \"x\"", true), ("format = \"x\"", false), ("", false)]
            {
                directory::replace(identity, text.as_bytes()).await.expect("written");
                match open(NODE).await.err().expect("refused") {
                    DataDirectoryError::Newer { found: 2, .. } => assert!(newer),
                    DataDirectoryError::Identity { .. } => assert!(!newer),
                    other => panic!("{other}"),
                }
            }
        });
    }

    #[test]
    fn partitions_without_an_identity_are_not_taken_over() {
        on_a_node(async {
            drop(open(NODE).await.expect("made"));
            directory::create(Path::new("/deep/data/p/t-0.AAAAAAAA")).await.expect("created");
            assert!(matches!(open(NODE).await.err(), Some(DataDirectoryError::NoIdentity { .. })));
        });
    }

    #[test]
    fn a_directory_tells_its_topic() {
        let (id, other) = (TopicId::from_random(1), TopicId::from_random(u128::MAX));
        let partition = PartitionId::new(12).expect("not negative");
        let made = PartitionDirectory::new(&name("a-1.b"), id, partition);
        assert!(made.to_string().starts_with("a-1.b-12."));
        assert!(made.is_of(&name("a-1.b"), id));
        assert!(!made.is_of(&name("a-1.b"), other) && !made.is_of(&name("a"), id));
    }

    #[test]
    fn what_is_set_aside_keeps_its_content_and_trash_is_freed() {
        on_a_node(async {
            let (data, _lock) = open(NODE).await.expect("made");
            let partition =
                PartitionDirectory::new(&name("t"), TopicId::from_random(7), PartitionId::new(0).expect("0"));
            for round in 0..2 {
                directory::create(&data.partition(&partition)).await.expect("created");
                directory::replace(&data.partition(&partition).join("1.log"), &[round]).await.expect("written");
                let kept = data.quarantine(&partition).await.expect("moved");
                assert_eq!(directory::read(&kept.join("1.log"), 10).await.expect("kept"), [round]);
            }
            directory::create(&data.partition(&partition)).await.expect("created");
            directory::replace(&data.partition(&partition).join("1.log"), b"x").await.expect("written");
            data.discard(&partition).await.expect("moved");
            assert!(data.list_partitions().await.expect("listed").is_empty());
            data.empty_trash().await.expect("emptied");
            assert!(directory::list(&data.root().join("trash")).await.expect("listed").is_empty());
        });
    }
}
