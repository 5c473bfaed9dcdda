//! Files and directories of a real shard: what is written is read back, without the page cache, and who holds a lock.
//!
//! What a disk does that fails is the simulator's and `tests/real_faults`' subject, not this file's.

use std::path::Path;

use super::*;

#[test]
fn what_was_written_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    on_shard(async move {
        let file = File::open(&path, OpenMode::Create).await.expect("new");
        let exists = File::open(&path, OpenMode::Create).await.err().expect("it exists");
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
        file.allocate(0, MIB as u64).await.expect("space");
        assert_eq!(file.length().await.expect("open"), MIB as u64);

        // More pieces than one system call takes.
        let content = pattern(5 * MIB, 1).freeze();
        let pieces = (0..1280).map(|block| content.slice(block * 4096..(block + 1) * 4096)).collect();
        let (result, pieces) = file.write_at(4096, pieces, Durability::Durable).await;
        result.expect("written");
        assert!(pieces.is_empty() && pieces.capacity() >= 1280, "the list comes back for reuse");
        file.write_at(0, vec![content.slice(0..4096)], Durability::Written).await.0.expect("written");
        file.sync().await.expect("synced");
        assert_eq!(file.length().await.expect("open"), 5 * MIB as u64 + 4096);

        let (result, buffer) = file.read_at(4096, 5 * MIB, Buffer::with_capacity(5 * MIB)).await;
        assert_eq!(result.expect("read"), 5 * MIB);
        assert!(*buffer == *content);
        assert_eq!(cached_pages(&path), 0, "the page cache holds none of it");
        std::fs::read(&path).expect("another program reads it");
        assert!(cached_pages(&path) > 0);
        File::open(&path, OpenMode::Write).await.expect("it exists");
        assert_eq!(cached_pages(&path), 0, "opening it for writing drops what others left");

        file.set_length(8192).await.expect("cut");
        assert_eq!(file.length().await.expect("open"), 8192);
    });
}

/// Pages of the file that the page cache holds (mincore(2)).
fn cached_pages(path: &Path) -> usize {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path).expect("it exists");
    let length = usize::try_from(file.metadata().expect("open").len()).expect("small");
    let mut pages = vec![0_u8; length.div_ceil(4096)];
    // SAFETY: maps the file afresh, looks at which pages are resident, and unmaps it; the vector has a byte for each page.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        assert_eq!(libc::mincore(map, length, pages.as_mut_ptr()), 0);
        libc::munmap(map, length);
    }
    pages.iter().filter(|&&page| page & 1 == 1).count()
}

#[test]
fn reading_past_the_end_gives_no_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    on_shard(async move {
        let file = File::open(&path, OpenMode::Create).await.expect("new");
        file.write_at(0, vec![pattern(8192, 3).freeze()], Durability::Written).await.0.expect("written");
        file.set_length(5000).await.expect("cut");
        let (result, buffer) = file.read_at(0, 65536, Buffer::with_capacity(65536)).await;
        assert_eq!((result.expect("read"), buffer.len()), (5000, 5000));
        let (result, buffer) = file.read_at(8192, 4096, Buffer::with_capacity(4096)).await;
        assert_eq!((result.expect("read"), buffer.len()), (0, 0));

        let read_only = File::open(&path, OpenMode::Read).await.expect("it exists");
        let (result, pieces) = read_only.write_at(0, vec![pattern(4096, 4).freeze()], Durability::Written).await;
        assert_eq!(result.expect_err("opened for reading").raw_os_error(), Some(libc::EBADF));
        assert!(pieces.is_empty());
        let absent = File::open(&path.with_extension("absent"), OpenMode::Read).await.err().expect("absent");
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn directories_and_locks() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().to_path_buf();
    on_shard(async move {
        let inner = root.join("inner");
        directory::create(&inner).await.expect("new");
        assert_eq!(directory::create(&inner).await.expect_err("it exists").kind(), io::ErrorKind::AlreadyExists);
        directory::replace(&inner.join("b"), b"first").await.expect("replaced");
        directory::replace(&inner.join("b"), b"second").await.expect("replaced");
        directory::rename(&inner.join("b"), &inner.join("a")).await.expect("renamed");
        directory::create(&inner.join("c")).await.expect("new");
        directory::sync(&inner).await.expect("synced");
        let names: Vec<(String, directory::EntryKind)> =
            directory::list(&inner).await.expect("listed").into_iter().map(|entry| (entry.name, entry.kind)).collect();
        assert_eq!(names, [("a".into(), directory::EntryKind::File), ("c".into(), directory::EntryKind::Directory)]);
        assert_eq!(directory::read(&inner.join("a"), 100).await.expect("read"), b"second");
        assert!(directory::remove(&inner).await.is_err(), "not empty");
        directory::remove_file(&inner.join("a")).await.expect("removed");
        directory::remove(&inner.join("c")).await.expect("removed");
        directory::remove(&inner).await.expect("removed");
        let space = directory::space(&root).await.expect("mounted");
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes, "{space:?}");
        assert!(directory::absolute("a/./b".as_ref()).is_ok_and(|path| path.is_absolute() && path.ends_with("a/b")));

        let lock = directory::lock(&root.join("LOCK"), "pid 7").await.expect("free");
        let error = directory::lock(&root.join("LOCK"), "pid 8").await.err().expect("taken");
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::WouldBlock, "pid 7"));
        drop(lock);
        directory::lock(&root.join("LOCK"), "pid 9").await.expect("free again");
    });
}
