//! A directory of a measurement's own, removed when the measurement ends.
//!
//! It lies where the caller says, since what is measured depends on the file system: one without O_DIRECT is no place for it.
//! Its name holds the process and a number, so that measurements that run side by side do not meet.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed with what is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory in `parent`.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn new(parent: &Path) -> io::Result<Scratch> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(format!("corelane-bench-{}-{number}", std::process::id()));
        fs::create_dir(&directory)?;
        Ok(Scratch(directory))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is seen by whoever looks into the directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
