//! The names of a simulated disk: directories as the process sees them, as they are durable, and the changes in between.
//!
//! A change is one or two edits that take effect together: a rename is atomic. Changes wait in a journal until a sync of a
//! directory that they touch, which takes along what they build on: earlier changes of the same name. A power cut keeps all
//! of the journal, none, a part from its front, or any subset in which no change stands without one that it builds on.
//!
//! Sources: rename(2), fsync(2) on directories.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::super::random::{PerMillion, Random};

/// A file or directory, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Inode(pub(super) u64);

/// The directory that every path starts in.
pub(super) const ROOT: Inode = Inode(1);

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) directory: Inode,
    pub(super) name: String,
}

/// What shall stand under a name; `None` removes it.
type Edit = (Place, Option<Inode>);

struct Change {
    order: u64,
    edits: Vec<Edit>,
}

#[derive(Default)]
struct Directory {
    cached: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
}

/// All directories of a disk.
pub(super) struct Names {
    directories: BTreeMap<Inode, Directory>,
    journal: Vec<Change>,
    order: u64,
}

fn invalid(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("not a path of the simulated disk: {}", path.display()))
}

impl Names {
    pub(super) fn new() -> Names {
        Names { directories: BTreeMap::from([(ROOT, Directory::default())]), journal: Vec::new(), order: 0 }
    }

    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        self.directories.contains_key(&inode)
    }

    /// What stands at `path`.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        match self.place(path)? {
            None => Ok(ROOT),
            Some(place) => self.at(&place).ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory at `path`.
    pub(super) fn find_directory(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.find(path)?;
        if self.is_directory(inode) { Ok(inode) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    /// The place that `path` names, whose directory exists; `None` for the root.
    pub(super) fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        let mut place: Option<Place> = None;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name.to_str().ok_or_else(|| invalid(path))?,
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => return Err(invalid(path)),
            };
            let directory = match &place {
                None => ROOT,
                Some(place) => self.at(place).ok_or(io::ErrorKind::NotFound)?,
            };
            if !self.is_directory(directory) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            place = Some(Place { directory, name: name.to_owned() });
        }
        Ok(place)
    }

    /// What stands at `place`.
    pub(super) fn at(&self, place: &Place) -> Option<Inode> {
        self.directories.get(&place.directory)?.cached.get(&place.name).copied()
    }

    /// The entries of a directory, sorted by name.
    pub(super) fn entries(&self, directory: Inode) -> impl Iterator<Item = (&String, Inode)> {
        let entries = self.directories.get(&directory).map(|directory| &directory.cached);
        entries.into_iter().flatten().map(|(name, &inode)| (name, inode))
    }

    /// Makes `inode` an empty directory; a change has to give it a name.
    pub(super) fn add_directory(&mut self, inode: Inode) {
        self.directories.insert(inode, Directory::default());
    }

    /// Lets the edits take effect together, not durably.
    pub(super) fn change(&mut self, edits: Vec<Edit>) {
        for (place, inode) in &edits {
            let directory = self.directories.get_mut(&place.directory).expect("a place is in a directory");
            edit(&mut directory.cached, place, *inode);
        }
        self.order += 1;
        self.journal.push(Change { order: self.order, edits });
    }

    /// The current point of the order of changes.
    pub(super) fn mark(&self) -> u64 {
        self.order
    }

    /// Makes durable what changed in `directory` up to `mark`.
    pub(super) fn harden(&mut self, directory: Inode, mark: u64) {
        let mut needed: BTreeSet<Place> = BTreeSet::new();
        let mut hardened = Vec::new();
        for index in (0..self.journal.len()).rev() {
            let change = &self.journal[index];
            let asked = change.order <= mark && change.edits.iter().any(|(place, _)| place.directory == directory);
            if asked || change.edits.iter().any(|(place, _)| needed.contains(place)) {
                needed.extend(change.edits.iter().map(|(place, _)| place.clone()));
                hardened.push(self.journal.remove(index));
            }
        }
        for change in hardened.into_iter().rev() {
            self.make_durable(change);
        }
    }

    fn make_durable(&mut self, change: Change) {
        for (place, inode) in change.edits {
            let directory = self.directories.get_mut(&place.directory).expect("directories are kept while in use");
            edit(&mut directory.durable, &place, inode);
        }
    }

    /// Decides about every change that is not durable; returns how many are lost.
    pub(super) fn power_cut(&mut self, random: &mut Random) -> u64 {
        let journal = std::mem::take(&mut self.journal);
        let (chance, whole_until) = match random.below(4) {
            0 => (PerMillion::ALWAYS, 0),
            1 => (PerMillion::NEVER, 0),
            2 => (PerMillion::NEVER, random.index(journal.len() + 1)),
            _ => (*random.choose(&[PerMillion(200_000), PerMillion(500_000), PerMillion(800_000)]), 0),
        };
        let mut lost: BTreeSet<Place> = BTreeSet::new();
        let mut lost_count = 0;
        for (index, change) in journal.into_iter().enumerate() {
            let founded = change.edits.iter().all(|(place, _)| !lost.contains(place));
            if founded && (index < whole_until || random.happens(chance)) {
                self.make_durable(change);
            } else {
                lost_count += 1;
                lost.extend(change.edits.into_iter().map(|(place, _)| place));
            }
        }
        for directory in self.directories.values_mut() {
            directory.cached.clone_from(&directory.durable);
        }
        lost_count
    }

    /// Everything that has a name, had one that may come back, or lies in a directory of which that is true.
    pub(super) fn referenced(&self) -> BTreeSet<Inode> {
        let journal = self.journal.iter().flat_map(|change| change.edits.iter().filter_map(|&(_, inode)| inode));
        let mut open: Vec<Inode> = journal.chain([ROOT]).collect();
        let mut found = BTreeSet::new();
        while let Some(inode) = open.pop() {
            if found.insert(inode)
                && let Some(directory) = self.directories.get(&inode)
            {
                open.extend(directory.cached.values().chain(directory.durable.values()));
            }
        }
        found
    }

    /// Forgets the directories outside `kept`, and changes inside them.
    pub(super) fn forget_unless(&mut self, kept: &BTreeSet<Inode>) {
        self.directories.retain(|inode, _| kept.contains(inode));
        for change in &mut self.journal {
            change.edits.retain(|(place, _)| kept.contains(&place.directory));
        }
        self.journal.retain(|change| !change.edits.is_empty());
    }
}

fn edit(names: &mut BTreeMap<String, Inode>, place: &Place, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(place.name.clone(), inode),
        None => names.remove(&place.name),
    };
}
